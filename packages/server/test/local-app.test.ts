import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { numericVoxels, readVolume, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LocalFile, openApp } from '../src/index.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { thresholdNetwork } from './onnx-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';

/* Apps of this machine without a server, as programs open them. */

let folder: string;
const temporary = process.env.TMPDIR;
beforeAll(async () => {
  folder = await temporaryFolder();
  process.env.TMPDIR = join(folder, 'tmp');
  await mkdir(process.env.TMPDIR);
});
afterAll(async () => {
  if (temporary === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = temporary;
  await rm(folder, { recursive: true, force: true });
});
/** All that is in the temporary folder: of the app, and of its ONNX engine. */
const leftBehind = () => readdirSync(process.env.TMPDIR!);

async function writeOnnxApp(id: string): Promise<string> {
  const weights = thresholdNetwork(300);
  await mkdir(join(folder, id), { recursive: true });
  await writeFile(join(folder, id, 'net.onnx'), weights);
  return writeApp(folder, id, {
    model: { runtime: 'onnx', file: 'net.onnx', sha256: createHash('sha256').update(weights).digest('hex') },
    postprocess: ['restore', 'argmax'],
    outputs: { segmentation: { type: 'LabelVolume' }, volumes: { type: 'Measurements' } },
    labels: [{ value: 1, name: 'bright' }],
  });
}

/** What the network marks, by the voxels alone. */
const expected = (volume: Volume) =>
  Array.from(numericVoxels(volume.voxels), (value) => (value > 300 ? 1 : 0));

describe('openApp()', () => {
  it('predicts with ONNX from each kind of file, on the volume’s grid', async () => {
    const scan = phantom();
    const nifti = await encode(scan, 'nii.gz');
    await writeFile(join(folder, 'scan.nii.gz'), nifti);
    const files: [LocalFile | LocalFile[], format: string][] = [
      [scan, 'nrrd'],
      [nifti, 'nii.gz'],
      [{ name: '../../etc/scan.nii.gz', bytes: nifti }, 'nii.gz'],
      [{ name: 'scan.mha', bytes: (await encode(scan, 'mha')).slice().buffer }, 'mha'],
      [new Blob([Uint8Array.from(nifti)]), 'nii.gz'],
      [[{ path: join(folder, 'scan.nii.gz') }], 'nii.gz'],
    ];
    {
      await using app = await openApp(await writeOnnxApp('local-net'));
      expect(app.manifest.id).toBe('local-net');
      for (const [volume, format] of files) {
        const stages = new Set<string>();
        const result = await app.predict({ volumes: { volume }, onProgress: (stage) => stages.add(stage) });
        expect(result.outputs.map(({ name }) => name)).toEqual(['segmentation', 'volumes']);
        const output = result.output();
        expect([output.name, output.fileName]).toEqual(['segmentation', `segmentation.${format}`]);
        const labels = await output.volume();
        expect([...labels.voxels]).toEqual(expected(scan));
        for (const [i, value] of labels.affine.entries()) expect(value).toBeCloseTo(obliqueAffine[i], 4);
        const { volume: read } = await readVolume(
          [sourceFromBytes(output.fileName, await output.bytes())],
          nodePlatform,
        );
        expect(read.voxels).toEqual(labels.voxels);
        const { labels: rows } = await result.output('volumes').json<{ labels: { voxels: number }[] }>();
        expect(rows[0].voxels).toBe(expected(scan).filter(Boolean).length);
        expect(stages).toContain('infer');
        expect(result.seconds).toBeGreaterThan(0);
      }
    }
    expect(leftBehind()).toEqual([]);
  });

  it('keeps a Volume’s type, components and exact affine', async () => {
    const affine = obliqueAffine.map((value, i) =>
      i < 12 ? value + 1 / 3 : value,
    ) as unknown as Volume['affine'];
    const voxels = Float64Array.from({ length: 2 * 3 * 4 * 2 }, (_, i) => i / 7 - 1e-9);
    const path = await writeApp(folder, 'echo', {
      infer: `return { segmentation: { ...volume, components: 1, voxels: new Uint8Array(24) },
        text: JSON.stringify({ voxels: [...volume.voxels], affine: volume.affine, components: volume.components }) };`,
      outputs: { segmentation: { type: 'LabelVolume' }, text: { type: 'PlainText' } },
    });
    await using app = await openApp(path);
    const result = await app.predict({
      volumes: { volume: { voxels, size: [2, 3, 4], components: 2, affine } },
      formats: { text: 'txt' },
    });
    const seen = JSON.parse(await result.output('text').text());
    expect(seen).toMatchObject({ voxels: [...voxels], components: 2 });
    for (const [i, value] of (seen.affine as number[]).entries()) expect(value).toBeCloseTo(affine[i], 12);
  });

  it('passes values on, and explains what is wrong with them', async () => {
    const path = await writeApp(folder, 'levels', {
      inputs: { volume: { type: 'volume' }, level: { type: 'slider', minimum: 0, maximum: 1000 } },
      infer:
        'return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => +(v > inputs.level)) } };',
    });
    await using app = await openApp(path);
    const volume = phantom();
    const count = async (level: number) => {
      const result = await app.predict({ volumes: { volume }, values: { level } });
      return Array.from((await result.output().volume()).voxels, Number).reduce((sum, v) => sum + v, 0);
    };
    expect([await count(500), await count(300)]).toEqual([3 * 4 * 3, 3 * 4 * 3 + 6 * 6 * 4]);
    await expect(count(2000)).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'level' });
    const wrong: [unknown, RegExp][] = [
      ['scan.nii', /volumes\.volume is of type string.*\{ path \}/],
      [null, /is null/],
      [{ path: join(folder, 'nowhere.nii') }, /ENOENT/],
      [{ path: folder }, /is not a file/],
      [{ name: 'x' }, /not a known file/],
      [new Uint8Array(50), /not a volume|no volume|format/],
    ];
    for (const [file, message] of wrong) {
      const refused = app.predict({ volumes: { volume: file as LocalFile } });
      await expect(refused).rejects.toMatchObject({
        field: 'volume',
        message: expect.stringMatching(message),
      });
    }
    await expect(app.predict({ volumes: { ct: volume } })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/volumes\.ct is not a file input .*Available: volume/),
    });
    await expect(app.predict({ volumes: {} })).rejects.toMatchObject({ code: 'INPUTS_MISSING' });
    const result = await app.predict({ volumes: { volume } });
    expect(() => result.output('mesh')).toThrow(/no output mesh\. Available: segmentation/);
    await expect(result.output().json()).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    expect(readdirSync(join(process.env.TMPDIR!, leftBehind()[0]))).toEqual([]);
  });

  it('ends an aborted or waiting prediction, and continues with the next', async () => {
    const path = await writeApp(folder, 'slow', {
      inputs: { volume: { type: 'volume' }, wait: { type: 'checkbox' } },
      infer: `if (inputs.wait) { context.log('waits'); await sleep(1e8); } ${inferBright}`,
    });
    const volume = phantom();
    const volumes = { volume };
    await using app = await openApp(path);
    const [running, waiting] = [new AbortController(), new AbortController()];
    const began = Promise.withResolvers<void>();
    const first = app.predict({
      volumes,
      values: { wait: true },
      signal: running.signal,
      onLog: () => began.resolve(),
    });
    const second = app.predict({ volumes, signal: waiting.signal });
    const third = app.predict({ volumes });
    await began.promise;
    waiting.abort(new Error('not wanted'));
    await expect(second).rejects.toThrow('not wanted');
    running.abort(new Error('too long'));
    await expect(first).rejects.toThrow('too long');
    expect((await third).output().sizeBytes).toBeGreaterThan(0);
    const last = app.predict({ volumes, values: { wait: true } });
    const closed = expect(last).rejects.toMatchObject({ code: 'CANCELED' });
    await app.close();
    await closed;
    await expect(app.predict({ volumes })).rejects.toMatchObject({ code: 'CANCELED' });
    expect(leftBehind()).toEqual([]);
  });

  it('names the option of the memory limit where a prediction needs more', async () => {
    const path = await writeApp(folder, 'hungry', {
      infer: 'const all = []; for (;;) all.push(new Uint8Array(2 ** 28).fill(1));',
    });
    await using app = await openApp(path, { memoryMb: 300 });
    await expect(app.predict({ volumes: { volume: phantom() } })).rejects.toMatchObject({
      code: 'OUT_OF_MEMORY',
      message: expect.stringMatching(/300 MB.*option memoryMb of openApp\(\)/),
    });
  });

  it('refuses a folder whose weights are not those of the manifest', async () => {
    const path = await writeOnnxApp('changed-net');
    await writeFile(join(path, 'net.onnx'), thresholdNetwork(2));
    await expect(openApp(path)).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
    await expect(openApp(folder)).rejects.toThrow(/has no tomaat\.yaml/);
  });
});

describe('an app of defineApp()', () => {
  const inputs = {
    volume: { type: 'volume' },
    level: { type: 'slider', minimum: 0, maximum: 1000, default: 300 },
  };
  const code = (level: string) => `import { defineApp, type NumericVolume } from '@tomaat/core';
import { above } from './above.ts';
export default defineApp({
  inputs: { volume: { type: 'volume' }, level: { type: '${level}' } },
  outputs: { segmentation: { type: 'LabelVolume' } },
  infer({ volume, level }: { volume: NumericVolume; level: number }) {
    return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => above(v, level)) } };
  },
});
`;
  async function writeTyped(id: string, level = 'slider', app = code(level)): Promise<string> {
    const path = await writeApp(folder, id, { inputs, model: { runtime: 'module', file: 'app.ts' } });
    await writeFile(join(path, 'app.ts'), app);
    await writeFile(
      join(path, 'above.ts'),
      'export const above = (v: number, level: number): number => +(v > level);\n',
    );
    return path;
  }
  const labelsOf = async (path: string) => {
    await using app = await openApp(path);
    return (await app.predict({ volumes: { volume: phantom() } })).output().volume();
  };

  it('runs as TypeScript outside the repository', async () => {
    expect([...(await labelsOf(await writeTyped('typed'))).voxels]).toEqual(expected(phantom()));
  });

  it('runs as TypeScript inside node_modules, also where it is linked', async () => {
    const packages = join(folder, 'project', 'node_modules');
    await mkdir(join(packages, '.store'), { recursive: true });
    const path = await writeTyped('typed-package');
    await writeFile(join(path, 'package.json'), '{ "name": "typed-package", "version": "1.0.0" }');
    await rename(path, join(packages, 'typed-package'));
    expect([...(await labelsOf(join(packages, 'typed-package'))).voxels]).toEqual(expected(phantom()));
    await rename(join(packages, 'typed-package'), join(packages, '.store', 'typed-package'));
    await symlink(join(packages, '.store', 'typed-package'), join(packages, 'linked'));
    expect([...(await labelsOf(join(packages, 'linked'))).voxels]).toEqual(expected(phantom()));
  });

  it('names syntax that cannot be stripped inside node_modules', async () => {
    const packages = join(folder, 'other', 'node_modules');
    await mkdir(packages, { recursive: true });
    const path = await writeTyped('with-enum', 'slider', 'enum A { B }\nexport const infer = () => A.B;\n');
    await rename(path, join(packages, 'with-enum'));
    await expect(labelsOf(join(packages, 'with-enum'))).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringMatching(/app\.ts cannot be loaded: .*enum/),
    });
  });

  it('is refused where it contradicts its manifest', async () => {
    const path = await writeTyped('contradicts', 'checkbox');
    await expect(labelsOf(path)).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringMatching(
        /inputs\.level\.type is "checkbox" in defineApp\(\), "slider" in tomaat\.yaml/,
      ),
    });
    expect(existsSync(path)).toBe(true);
  });
});
