/** Readers of text that is not written back as a volume: meshes, and headers stripped of what identifies a patient. */
import {
  collectBytes,
  findIdentifyingText,
  type Mesh,
  meshToStl,
  meshToVtk,
  readMesh,
  writeStripped,
} from '@tomaat/core';
import { nodePlatform } from '../../packages/server/src/node-platform.ts';
import { bytesOf, equal, must, type Target } from '../target.ts';

const tetrahedron: Mesh = {
  positions: Float32Array.of(0, 0, 0, 10.5, 0, 0.25, 0, 20, -3, 1, 2, 30),
  triangles: Uint32Array.of(0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3),
  labels: Uint16Array.of(1, 1, 2, 7),
};
const joined = (pieces: Iterable<Uint8Array>) => new Uint8Array(Buffer.concat([...pieces]));

const mesh: Target = {
  description: 'Meshes: legacy VTK, text and binary, and STL',
  seeds: async () => [
    joined(meshToVtk(tetrahedron)),
    joined(meshToVtk(tetrahedron, { binary: true })),
    joined(meshToStl(tetrahedron)),
    bytesOf(
      '# vtk DataFile Version 5.1\nx SPACE=LPS\nASCII\nDATASET POLYDATA\nPOINTS 4 double\n0 0 0 1 0 0 0 1 0 1 1 .5e1\nMETADATA\nINFORMATION 0\n\nPOLYGONS 2 4\nOFFSETS vtktypeint64\n0 4\nCONNECTIVITY vtktypeint64\n0 1 3 2\nCELL_DATA 1\nFIELD FieldData 1\nlabel 1 1 int\n7\n',
    ),
    bytesOf(
      '# vtk DataFile Version 2.0\r\n\r\nASCII\r\nDATASET POLYDATA\r\nPOINTS 4 float\r\n0 0 0 1 0 0 0 1 0 1 1 1\r\nVERTICES 1 2\r\n1 0\r\nTRIANGLE_STRIPS 1 5\r\n4 0 1 2 3\r\n',
    ),
  ],
  longRuns: {
    texts: [
      '# vtk DataFile Version 3.0…\n…x…\n…ASCII…\n…DATASET…POLYDATA…\n…POINTS…4…float…\n0 0 0 1 0 0 0 1 0 …1 1 1…\n…POLYGONS…1…4…\n3 …0 1 2…\n…CELL_DATA…1…\nSCALARS…label…int…1…\nLOOKUP_TABLE…default…\n…7…\n',
      '# vtk DataFile Version 5.1\nx\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n0 0 0 1 0 0 0 1 0\nMETADATA…\n…INFORMATION…1…\n\n…POLYGONS 2 3\nOFFSETS…int…\n0 3\nCONNECTIVITY…int…\n0 1 2\nCELL_DATA 1\nFIELD…FieldData…1…\nlabel 1…1…int\n7\n',
      'solid…\nfacet…\n',
    ],
  },
  words: [
    '# vtk DataFile Version 3.0\n',
    'ASCII\n',
    'BINARY\n',
    'DATASET POLYDATA\n',
    'POINTS 3 float\n',
    'POLYGONS 1 4\n',
    'TRIANGLE_STRIPS 1 5\n',
    'VERTICES 1 2\n',
    'LINES 1 3\n',
    'OFFSETS vtktypeint64\n',
    'CONNECTIVITY vtktypeint64\n',
    'METADATA\n',
    'CELL_DATA 1\n',
    'POINT_DATA 3\n',
    'SCALARS label int 1\n',
    'LOOKUP_TABLE default\n',
    'FIELD FieldData 1\n',
    'NORMALS n float\n',
    'unsigned_char',
    'double',
    'SPACE=LPS',
    'nan',
    '\n',
    ' ',
  ],
  maxBytes: 4096,
  run(input) {
    const { positions, triangles, labels } = readMesh(input);
    must(positions.length % 3 === 0 && positions.every(Number.isFinite), 'places are three finite numbers');
    must(
      triangles.length % 3 === 0 && triangles.every((corner) => corner < positions.length / 3),
      'corners are points',
    );
    must(labels === undefined || labels.length === triangles.length / 3, 'a label for every triangle');
    const again = readMesh(joined(meshToVtk({ positions, triangles, labels }, { binary: true })));
    must(
      equal(new Uint8Array(again.positions.buffer), new Uint8Array(positions.slice().buffer)) &&
        String(again.triangles) === String(triangles),
      'a binary file keeps the mesh',
    );
  },
};

async function strip(bytes: Uint8Array) {
  const source = {
    name: 'a',
    sizeBytes: bytes.length,
    async *read(start = 0, end = bytes.length) {
      if (start < end) yield bytes.subarray(start, end);
    },
  };
  const { fields, rewrite } = await findIdentifyingText(source, nodePlatform);
  return {
    fields,
    bytes: rewrite ? await collectBytes(writeStripped(source, rewrite, nodePlatform)) : bytes,
  };
}

const identifyingText: Target = {
  description: 'Headers of which identifying text is taken out',
  seeds: async () => [
    bytesOf(
      'NRRD0005\n# made for someone\ntype: uchar\ndimension: 3\nsizes: 2 2 1\nspacings: 1 2 3\ncontent: of someone\nname:=someone\nencoding: raw\n\n1234',
    ),
    bytesOf(
      'ObjectType = Image\nNDims = 3\nComment = someone\nDimSize = 2 2 1\nElementType = MET_UCHAR\nPatientName = x\nElementDataFile = LOCAL\n1234',
    ),
    bytesOf('NDims = 3\nDimSize = 2 2 1\nElementType = MET_UCHAR\nElementDataFile = someone.raw\n'),
  ],
  longRuns: {
    texts: [
      'NRRD0005…\n# comment…\ntype:…uchar…\ndimension: 3\nsizes: 2 2…1…\nspace directions: (1,…0,0) (0,1,0) (0,0,1)…\nspace units: "mm…" "mm" "mm"\nkinds: domain…domain domain\ncontent:…a\nkey…:=…value\nencoding: raw\n\n1234',
      '…ObjectType…=…Image\nNDims = 3\nOffset = 1…2 3\nComment =…a…\nPatient…Name :…b\nDimSize = 2 2 1\nElementType = MET_UCHAR\nElementDataFile =…LOCAL…\n1234',
    ],
  },
  words: [
    '# someone\n',
    'name:=someone\n',
    'content: someone\n',
    'Comment = someone\n',
    'data file: someone.raw\n',
    'data file: LIST\n',
    'ElementDataFile = LIST\n',
    'units: "mm" "someone" "mm"\n',
    'kinds: domain someone domain\n',
    'NRRD0005\n',
    'NDims = 3\n',
    ': ',
    ':=',
    ' = ',
    '\r\n',
    '\n\n',
    '\0',
  ],
  maxBytes: 4096,
  async run(input) {
    const once = await strip(input);
    const twice = await strip(once.bytes);
    must(equal(twice.bytes, once.bytes), 'nothing is left to be taken out');
  },
};

export const textTargets = { mesh, 'identifying-text': identifyingText };
