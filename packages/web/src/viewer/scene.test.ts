import {
  type Affine,
  applyAffine,
  multiply,
  readVolume,
  sourceFromBytes,
  type Vec3,
  type Volume,
  webPlatform,
} from '@tomaat/core';
import { beforeEach, describe, expect, it, vi } from 'vitest';

/* The scene on a stand-in for NiiVue, which needs WebGL 2: what it is asked to draw. Pixels are looked at in a browser (test/). */

interface Image {
  bytes: ArrayBuffer;
  cal_min: number;
  cal_max: number;
  global_min: number;
  global_max: number;
  opacity: number;
  table?: { R: number[]; G: number[]; B: number[]; A: number[]; I: number[]; labels: string[] };
}
interface Surface {
  positions: Float32Array;
  triangles: Uint32Array;
  name: string;
  color: Uint8Array;
  visible: boolean;
}

const state = vi.hoisted(() => ({ instances: [] as unknown[] }));
vi.mock('@niivue/niivue', () => {
  class Niivue {
    opts: Record<string, unknown>;
    volumes: Image[] = [];
    meshes: Surface[] = [];
    scene: { crosshairPos?: number[] } = {};
    draws = 0;
    customLayout: unknown[] = [];
    onLocationChange = (_: { mm: number[] }) => {};
    // Draws by software.
    gl = {
      getExtension: () => ({ UNMASKED_RENDERER_WEBGL: 1, loseContext() {} }),
      getParameter: () => 'SwiftShader',
    };
    constructor(opts: Record<string, unknown>) {
      this.opts = { ...opts };
      state.instances.push(this);
    }
    async attachToCanvas(canvas: { hasWebGl: boolean }) {
      if (!canvas.hasWebGl) throw new Error('no context');
    }
    addVolume(image: Image) {
      this.volumes.push(image);
      this.updateGLVolume();
    }
    removeVolume(image: Image) {
      this.volumes = this.volumes.filter((one) => one !== image);
      this.updateGLVolume();
    }
    addMesh(mesh: Surface) {
      this.meshes.push(mesh);
      this.updateGLVolume();
    }
    removeMesh(mesh: Surface) {
      this.meshes = this.meshes.filter((one) => one !== mesh);
      this.updateGLVolume();
    }
    /** Layers whose textures were built, in turn. */
    built: number[] = [];
    refreshLayers(_: Image, layer: number) {
      this.built.push(layer);
    }
    updateGLVolume() {
      this.drawScene();
    }
    updateInterpolation() {}
    setCustomSliceShader() {}
    drawScene() {
      this.draws++;
    }
    mm2frac(mm: number[], _volume: number, isWorld: boolean) {
      return isWorld ? mm.map((v) => v / 1000) : [];
    }
    createOnLocationChange() {
      this.onLocationChange({ mm: this.scene.crosshairPos!.map((v) => v * 1000) });
    }
    cleanup() {}
  }
  return {
    Niivue,
    NVImage: {
      loadFromUrl: async ({ url }: { url: ArrayBuffer }) => ({
        bytes: url,
        cal_min: 10,
        cal_max: 200,
        global_min: -5,
        global_max: 300,
        dimsRAS: [3, 4, 3, 5],
        extentsMinOrtho: [0, 0, 0],
        extentsMaxOrtho: [3, 5, 12],
        setColormapLabel(this: Image, table: Image['table']) {
          this.table = table;
        },
      }),
    },
    NVMesh: class {
      visible = true;
      constructor(positions: Float32Array, triangles: Uint32Array, name: string, color: Uint8Array) {
        Object.assign(this, { positions, triangles, name, color });
      }
    },
    SLICE_TYPE: { SAGITTAL: 2, MULTIPLANAR: 3, RENDER: 4 },
  };
});

// There are no workers here.
vi.mock('./prepare-apart.ts', async () => {
  const { prepare } = await import('./prepare.ts');
  return { prepareApart: async (...given: Parameters<typeof prepare>) => prepare(...given) };
});

const { openScene } = await import('./scene.ts');

interface StandIn {
  opts: Record<string, unknown>;
  volumes: Image[];
  meshes: Surface[];
  scene: { crosshairPos?: number[] };
  built: number[];
  draws: number;
  customLayout: unknown[];
  onLocationChange(location: { mm: number[] }): void;
}

const frames = new Map<number, () => void>();
let frameCount = 0;
beforeEach(() => {
  frames.clear();
  vi.stubGlobal('requestAnimationFrame', (call: () => void) => {
    frames.set(++frameCount, call);
    return frameCount;
  });
  vi.stubGlobal('cancelAnimationFrame', (id: number) => frames.delete(id));
});
function drawFrame(): void {
  const calls = [...frames.values()];
  frames.clear();
  for (const call of calls) call();
}

async function open(onMove: (position: Vec3, clicked: boolean) => void = () => {}) {
  const canvas = Object.assign(new EventTarget(), { hasWebGl: true, width: 900, height: 600 });
  const scene = await openScene(canvas as unknown as HTMLCanvasElement, onMove);
  drawFrame();
  const niivue = state.instances.at(-1) as StandIn;
  // Without those of the voxels that nobody sees.
  niivue.built.length = 0;
  return { canvas, scene, niivue };
}

/** Left-handed, oblique, anisotropic, with other counts along each axis. */
const affine: Affine = [0, 1.5, 0, -20, 0.8, 0, 0.3, 7, -0.1, 0, 2.5, 40, 0, 0, 0, 1];
const scan: Volume = {
  size: [3, 4, 5],
  components: 1,
  affine,
  voxels: Int16Array.from({ length: 60 }, (_, i) => i * 7 - 100),
};
const labelMap: Volume = { ...scan, voxels: Uint8Array.from({ length: 60 }, (_, i) => i % 4) };
/** From 10 to 200. */
const firstWindow = { level: 105, width: 190 };
const styles = [
  { value: 1, name: 'left', color: '#ff8000', visible: true },
  { value: 3, name: 'right', color: '#0080ff', visible: false },
];

async function shown({ bytes }: Image): Promise<Volume> {
  return (await readVolume([sourceFromBytes('shown.nii', new Uint8Array(bytes))], webPlatform)).volume;
}

describe('openScene()', () => {
  it('says what to do where the browser has no WebGL 2', async () => {
    const canvas = Object.assign(new EventTarget(), { hasWebGl: false });
    await expect(openScene(canvas as unknown as HTMLCanvasElement, () => {})).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining('no WebGL 2'),
    });
  });

  it('draws scan and labels with their voxels and their affine', async () => {
    const { scene, niivue } = await open();
    expect(await scene.setScan(scan, firstWindow)).toEqual({ lowest: -100, highest: 313 });
    await scene.setLabels(labelMap, () => styles);
    const [below, above] = await Promise.all(niivue.volumes.map(shown));
    expect([...below.voxels]).toEqual([...scan.voxels]);
    expect([...above.voxels]).toEqual([...labelMap.voxels]);
    for (const { affine: found } of [below, above])
      expect(found).toEqual(affine.map((v) => expect.closeTo(v, 5)));
  });

  it('draws labels without a scan over an empty one on the same grid', async () => {
    const { scene, niivue } = await open();
    await scene.setLabels(labelMap, () => styles);
    const [below] = await Promise.all(niivue.volumes.map(shown));
    expect(niivue.volumes).toHaveLength(2);
    expect(below.size).toEqual(labelMap.size);
    expect(below.voxels.every((v) => v === 0)).toBe(true);
  });

  it('replaces the labels of before, and keeps them over another scan', async () => {
    const { scene, niivue } = await open();
    await scene.setScan(scan, firstWindow);
    await scene.setLabels(labelMap, () => styles);
    await scene.setLabels(labelMap, () => styles);
    expect(niivue.volumes).toHaveLength(2);
    const [, labels] = niivue.volumes;
    await scene.setScan({ ...scan, voxels: new Int16Array(60).fill(7) }, firstWindow);
    const [below, above] = niivue.volumes;
    expect((await shown(below)).voxels.every((v) => v === 7)).toBe(true);
    expect(above).toBe(labels);
    await scene.setLabels(undefined, () => []);
    expect(niivue.volumes).toEqual([below]);
  });

  it('gives each label its colour, and hides those that are off', async () => {
    const { scene, niivue } = await open();
    await scene.setScan(scan, firstWindow);
    await scene.setLabels(labelMap, () => styles);
    const table = () => niivue.volumes[1].table!;
    expect(table()).toEqual({
      R: [0, 255, 0],
      G: [0, 128, 128],
      B: [0, 0, 255],
      A: [0, 255, 0],
      I: [0, 1, 3],
      labels: ['background', 'left', 'right'],
    });
    scene.styleLabels(styles.map((style) => ({ ...style, visible: !style.visible })));
    expect(table().A).toEqual([0, 0, 255]);
  });

  it('builds each layer once at opening, and then only the one that changed', async () => {
    const { canvas, scene, niivue } = await open();
    const built = (act: () => void) => {
      act();
      drawFrame();
      return niivue.built.splice(0);
    };
    await scene.setScan(scan, firstWindow);
    scene.setWindow(0, 50);
    await scene.setLabels(labelMap, () => styles);
    expect(built(() => scene.setPoints([[1, 2, 3]]))).toEqual([0, 1]);
    expect([niivue.volumes[0].cal_min, niivue.volumes[0].cal_max]).toEqual([0, 50]);
    expect(built(() => scene.setWindow(10, 60))).toEqual([0]);
    const hidden = styles.map((style) => ({ ...style, visible: false }));
    expect(built(() => scene.styleLabels(hidden))).toEqual([1]);
    const sameAgain = () => {
      scene.setWindow(10, 60);
      scene.styleLabels(hidden);
      scene.setView('3d');
      scene.setPoints([]);
    };
    expect(built(sameAgain)).toEqual([]);
    expect(built(() => scene.setOpacity(0.3))).toEqual([]);
    expect((canvas as unknown as { rebuilds: object }).rebuilds).toEqual({ scan: 2, labels: 2 });
  });

  it('never shows an older scan or label map after a newer one', async () => {
    const { scene, niivue } = await open();
    const filled = (value: number) => ({ ...scan, voxels: new Int16Array(60).fill(value) });
    const large: Volume = { ...filled(1), size: [90, 90, 90], voxels: new Int16Array(729_000).fill(1) };
    const found = await Promise.all([
      scene.setScan(large, firstWindow),
      scene.setScan(filled(2), firstWindow),
    ]);
    expect([found[0], found[1]?.highest]).toEqual([undefined, 2]);
    await Promise.all([scene.setLabels(large, () => styles), scene.setLabels(filled(3), () => styles)]);
    const [below, above] = await Promise.all(niivue.volumes.map(shown));
    expect([below.voxels[0], above.voxels[0]]).toEqual([2, 3]);
  });

  it('draws labels on the grid of the scan that is shown, whichever came first', async () => {
    const { scene, niivue } = await open();
    // Twice as fine along each axis, and from the other end of the first one.
    const fine: Volume = {
      ...scan,
      size: [6, 8, 10],
      affine: multiply(affine, [-0.5, 0, 0, 2.25, 0, 0.5, 0, -0.25, 0, 0, 0.5, -0.25, 0, 0, 0, 1]),
      voxels: new Int16Array(480),
    };
    const small: Volume = { ...scan, voxels: new Uint8Array(60) };
    (small.voxels as Uint8Array)[2 + 3 * (1 + 4 * 3)] = 1;
    const drawn = async () => {
      const [below, above] = await Promise.all(niivue.volumes.map(shown));
      expect(above.affine).toEqual(below.affine);
      const [mx, my] = above.size;
      return [...above.voxels].flatMap((v, i) =>
        v === 0
          ? []
          : [applyAffine(above.affine, [i % mx, Math.floor(i / mx) % my, Math.floor(i / (mx * my))])],
      );
    };
    const centre = applyAffine(affine, [2, 1, 3]);
    const expectAround = (found: readonly Vec3[], count: number) => {
      expect(found).toHaveLength(count);
      for (const axis of [0, 1, 2])
        expect(found.reduce((sum, mm) => sum + mm[axis], 0) / count).toBeCloseTo(centre[axis], 4);
    };
    await scene.setLabels(small, () => styles);
    expectAround(await drawn(), 1);
    await scene.setScan(fine, firstWindow);
    expectAround(await drawn(), 8);
    await scene.setScan(scan, firstWindow);
    expectAround(await drawn(), 1);
    await Promise.all([
      scene.setScan(fine, firstWindow),
      scene.setLabels(small, () => styles),
      scene.setScan(scan, firstWindow),
    ]);
    expectAround(await drawn(), 1);
    expect(niivue.volumes[1].table!.labels).toEqual(['background', 'left', 'right']);
  });

  it('keeps a window chosen while every voxel is prepared; the next scan begins reduced', async () => {
    const { scene, niivue } = await open();
    const large = (value: number): Volume => ({
      ...scan,
      size: [132, 132, 132],
      voxels: new Uint8Array(132 ** 3).fill(value),
    });
    const window = () => [niivue.volumes[0].cal_min, niivue.volumes[0].cal_max];
    await scene.setScan(large(1), firstWindow);
    expect(scene.detail()).toEqual({ factor: 2, isSoftware: true });
    scene.setWindow(0, 50);
    const drawing = scene.drawFully();
    scene.setWindow(20, 90);
    await drawing;
    expect(scene.detail().factor).toBe(1);
    expect(window()).toEqual([20, 90]);
    await scene.setScan(large(2), firstWindow);
    expect(scene.detail().factor).toBe(2);
    // The one that it is given.
    expect(window()).toEqual([10, 200]);
  });

  it('moves the crosshair in world coordinates, and distinguishes clicks from drags', async () => {
    const onMove = vi.fn();
    const { canvas, scene, niivue } = await open(onMove);
    await scene.setScan(scan, firstWindow);
    scene.goTo([-18.5, 7.8, 40.1]);
    expect(niivue.scene.crosshairPos).toEqual([-0.0185, 0.0078, 0.0401].map((v) => expect.closeTo(v, 6)));
    expect(onMove).toHaveBeenLastCalledWith(
      [-18.5, 7.8, 40.1].map((v) => expect.closeTo(v)),
      false,
    );
    canvas.dispatchEvent(new Event('pointerdown'));
    niivue.onLocationChange({ mm: [1, 2, 3] });
    niivue.onLocationChange({ mm: [4, 5, 6] });
    expect(onMove.mock.calls.slice(-2)).toEqual([
      [[1, 2, 3], true],
      [[4, 5, 6], false],
    ]);
    scene.close();
    niivue.onLocationChange({ mm: [7, 8, 9] });
    expect(onMove).toHaveBeenCalledTimes(3);
  });

  it('draws a surface for each label, in its colour, shown or hidden', async () => {
    const { scene, niivue } = await open();
    const mesh = {
      positions: Float32Array.of(0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5),
      triangles: Uint32Array.of(0, 1, 2, 0, 2, 3, 0, 3, 1),
      labels: Uint16Array.of(3, 1, 3),
    };
    scene.setMesh(mesh, styles);
    const drawn = () =>
      niivue.meshes.map(({ name, triangles, color, visible }) => [name, [...triangles], [...color], visible]);
    expect(drawn()).toEqual([
      ['label 3', [0, 1, 2, 0, 3, 1], [0, 128, 255, 255], false],
      ['label 1', [0, 2, 3], [255, 128, 0, 255], true],
    ]);
    scene.styleLabels(styles.map((style) => ({ ...style, visible: true })));
    expect(niivue.meshes.map(({ visible }) => visible)).toEqual([true, true]);
    scene.setMesh({ ...mesh, labels: Uint16Array.of(1, 1, 1) }, styles);
    expect(drawn()).toEqual([['label 1', [0, 1, 2, 0, 2, 3, 0, 3, 1], [255, 128, 0, 255], true]]);
  });

  it('draws a closed body around each point, its faces outward', async () => {
    const { scene, niivue } = await open();
    const points: Vec3[] = [
      [10, -20, 30],
      [-1, 2, -3],
    ];
    scene.setPoints(points);
    const [{ positions, triangles }] = niivue.meshes;
    expect([positions.length, triangles.length]).toEqual([2 * 6 * 3, 2 * 8 * 3]);
    const at = (vertex: number) => [...positions.subarray(3 * vertex, 3 * vertex + 3)];
    points.forEach((point, n) => {
      let volume = 0;
      for (let t = 8 * n; t < 8 * (n + 1); t++) {
        const [a, b, c] = [0, 1, 2].map((k) => at(triangles[3 * t + k]).map((v, i) => v - point[i]));
        const cross = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
        const part = (a[0] * cross[0] + a[1] * cross[1] + a[2] * cross[2]) / 6;
        expect(part).toBeGreaterThan(0);
        volume += part;
      }
      // An octahedron of radius r has 4/3 r³.
      expect(volume).toBeCloseTo((4 / 3) * 2.5 ** 3, 4);
    });
    scene.setPoints([]);
    expect(niivue.meshes).toEqual([]);
  });

  it('makes lines and points smaller in a small volume', async () => {
    const { scene, niivue } = await open();
    await scene.setScan(
      { ...scan, affine: [0.01, 0, 0, 0, 0, 0.01, 0, 0, 0, 0, 0.02, 0, 0, 0, 0, 1] },
      firstWindow,
    );
    expect(niivue.opts.crosshairWidth).toBeCloseTo(0.001);
    expect(niivue.opts.crosshairGap).toBeCloseTo(0.005);
    scene.setPoints([[0, 0, 0]]);
    // It reaches beyond half of the thickest slice.
    expect(Math.max(...niivue.meshes[0].positions)).toBeCloseTo(0.012, 6);
  });

  it.each([
    ['slices', 3, 3],
    ['row', 3, 3],
    ['one', 3, 1],
    ['all', 3, 4],
    ['3d', 4, 0],
  ] as const)('shows the view %s', async (view, type, tiles) => {
    const { scene, niivue } = await open();
    await scene.setScan(scan, firstWindow);
    scene.setView(view);
    const before = niivue.draws;
    drawFrame();
    expect(niivue.draws).toBe(before + 1);
    expect(niivue.opts.sliceType).toBe(type);
    if (tiles > 0) expect(niivue.customLayout).toHaveLength(tiles);
  });
});
