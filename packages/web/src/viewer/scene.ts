import { Niivue, NVImage, NVMesh } from '@niivue/niivue';
import { type Mesh, spacingOf, TomaatError, type Vec3, type Volume } from '@tomaat/core';
import { toNifti } from '../form/scan.ts';
import type { View } from './layouts.ts';
import { createSceneTools, type SceneTools } from './scene-tools.ts';

/**
 * The viewer: NiiVue and what the page needs of it. This file and all of NiiVue are loaded only if a volume is shown.
 */
export interface LabelStyle {
  value: number;
  name: string;
  /** "#rrggbb". */
  color: string;
  visible: boolean;
}

export interface Scene extends SceneTools {
  /** The grey volume; slices follow its grid. */
  setScan(volume: Volume): Promise<{ low: number; high: number; lowest: number; highest: number }>;
  /** The label map over it, in discrete colours. */
  setLabels(volume: Volume, labels: readonly LabelStyle[]): Promise<void>;
  styleLabels(labels: readonly LabelStyle[]): void;
  setOpacity(opacity: number): void;
  /** The values that are drawn black and white. */
  setWindow(low: number, high: number): void;
  /** Surfaces, one for each label; RAS+ mm. */
  setMesh(mesh: Mesh, labels: readonly LabelStyle[]): void;
  setPoints(points: readonly Vec3[]): void;
  setView(view: View): void;
  /** Moves the crosshair; RAS+ mm. */
  goTo(position: Vec3): void;
  close(): void;
}

const background = { slices: [0.043, 0.055, 0.067, 1] };

/**
 * Opens the viewer on a canvas. `onMove` receives the world position of the crosshair, RAS+ mm, and whether the user
 * placed it by a click. Throws UNSUPPORTED_FORMAT if the browser has no WebGL 2.
 */
export async function openScene(
  canvas: HTMLCanvasElement,
  onMove: (position: Vec3, clicked: boolean) => void,
): Promise<Scene> {
  const niivue = new Niivue({
    logLevel: 'silent',
    loadingText: '',
    dragAndDropEnabled: false,
    isAntiAlias: false,
    backColor: background.slices,
    crosshairColor: [0.35, 0.8, 0.88, 0.9],
    crosshairWidth: 1,
    crosshairWidthUnit: 'mm',
    crosshairGap: 8,
    show3Dcrosshair: false,
    isColorbar: false,
    isOrientCube: false,
    // Radiological convention: the patient's right is on the left.
    isRadiologicalConvention: true,
    meshThicknessOn2D: 0,
    meshXRay: 0.15,
    fontMinPx: 11,
    limitFrames4D: 1,
  });
  try {
    await niivue.attachToCanvas(canvas, false);
  } catch (cause) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'This browser cannot draw volumes: it has no WebGL 2. Download the result, or use another browser.',
      { cause },
    );
  }
  // For the console, and for tests that examine pixels.
  Object.assign(canvas, { niivue });
  let clicked = false;
  const press = () => {
    clicked = true;
  };
  const dropPress = () => {
    clicked = false;
  };
  canvas.addEventListener('pointerdown', press, { capture: true });
  canvas.addEventListener('pointercancel', dropPress);
  niivue.onLocationChange = (location) => {
    const { mm } = location as { mm: ArrayLike<number> };
    onMove([mm[0], mm[1], mm[2]], clicked);
    clicked = false;
  };
  const redraw = drawOncePerFrame(niivue);
  const { setView, ...tools } = createSceneTools(niivue, canvas, dropPress);

  let scan: NVImage | undefined;
  let overlay: NVImage | undefined;
  let opacity = 0.55;
  /** The labels that `overlay` is drawn with. */
  let styles: readonly LabelStyle[] | undefined;
  const surfaces = new Map<number, NVMesh>();
  let points: NVMesh | undefined;
  /** mm. */
  let pointRadius = 2.5;

  async function imageOf(volume: Volume, name: string): Promise<NVImage> {
    const bytes = await toNifti(volume);
    return NVImage.loadFromUrl({ url: bytes.buffer, name, colorbarVisible: false });
  }

  const addMesh = (positions: Float32Array, triangles: Uint32Array, name: string, color: string): NVMesh => {
    const mesh = new NVMesh(
      positions,
      triangles,
      name,
      Uint8Array.of(...rgbOf(color), 255),
      1,
      true,
      niivue.gl,
    );
    niivue.addMesh(mesh);
    return mesh;
  };

  const scene: Scene = {
    ...tools,
    async setScan(volume) {
      const image = await imageOf(volume, 'scan.nii');
      for (const old of [...niivue.volumes]) niivue.removeVolume(old);
      overlay = undefined;
      scan = image;
      niivue.addVolume(image);
      const extent = extentOf(volume);
      niivue.opts.crosshairWidth = lineWidth(extent);
      // It is rebuilt when it is drawn.
      if (niivue.crosshairs3D) niivue.crosshairs3D.mm![0] = Number.NaN;
      niivue.opts.crosshairGap = Math.min(8, extent / 20);
      pointRadius = Math.min(2.5, extent / 40);
      return {
        low: image.cal_min!,
        high: image.cal_max!,
        lowest: image.global_min!,
        highest: image.global_max!,
      };
    },
    async setLabels(volume, labels) {
      if (!scan)
        await scene.setScan({
          ...volume,
          components: 1,
          voxels: new Uint8Array(volume.size[0] * volume.size[1] * volume.size[2]),
        });
      if (overlay) niivue.removeVolume(overlay);
      overlay = await imageOf(volume, 'labels.nii');
      overlay.setColormapLabel(lookupTable(labels));
      overlay.opacity = opacity;
      styles = labels;
      niivue.addVolume(overlay);
    },
    styleLabels(labels) {
      if (overlay && labels !== styles) {
        overlay.setColormapLabel(lookupTable(labels));
        styles = labels;
        niivue.updateGLVolume();
      }
      for (const { value, visible } of labels) {
        const surface = surfaces.get(value);
        if (surface) surface.visible = visible;
      }
      redraw();
    },
    setOpacity(value) {
      if (value === opacity) return;
      opacity = value;
      if (!overlay) return;
      overlay.opacity = value;
      niivue.updateGLVolume();
    },
    setWindow(low, high) {
      const isSame = (a: number, b: number) => Math.abs(a - b) <= 1e-6 * Math.abs(high - low);
      if (!scan || (isSame(low, scan.cal_min!) && isSame(high, scan.cal_max!))) return;
      scan.cal_min = low;
      scan.cal_max = high;
      niivue.updateGLVolume();
    },
    setMesh(mesh, labels) {
      for (const surface of surfaces.values()) niivue.removeMesh(surface);
      surfaces.clear();
      for (const [value, triangles] of trianglesByLabel(mesh)) {
        const style = labels.find((label) => label.value === value) ?? labels[0];
        const surface = addMesh(mesh.positions, triangles, `label ${value}`, style?.color ?? '#e8b48c');
        surface.visible = style?.visible ?? true;
        surfaces.set(value, surface);
      }
      redraw();
    },
    setPoints(positions) {
      if (points) niivue.removeMesh(points);
      points = undefined;
      if (positions.length === 0) return;
      const { vertices, triangles } = octahedra(positions, pointRadius);
      points = addMesh(vertices, triangles, 'points', '#ffd43b');
    },
    setView(view) {
      setView(view);
      redraw();
    },
    goTo(position) {
      // true: the position is in world coordinates, even if the slices are drawn along the voxels.
      niivue.scene.crosshairPos = niivue.mm2frac([...position], 0, true);
      niivue.drawScene();
      niivue.createOnLocationChange();
    },
    close() {
      canvas.removeEventListener('pointerdown', press, { capture: true });
      canvas.removeEventListener('pointercancel', dropPress);
      niivue.onLocationChange = () => {};
      niivue.drawScene = () => undefined;
      niivue.cleanup();
      niivue.gl.getExtension('WEBGL_lose_context')?.loseContext();
    },
  };
  scene.setView('slices');
  return scene;
}

/**
 * NiiVue rebuilds all its textures at each change of a volume, its window or a mesh, which takes seconds without a
 * graphics card. This makes it rebuild once for all changes in a frame, before anything else draws. The returned
 * function requests a frame.
 */
function drawOncePerFrame(niivue: Niivue): () => void {
  const update = niivue.updateGLVolume.bind(niivue);
  const draw = niivue.drawScene.bind(niivue);
  let isStale = false;
  let frame: number | undefined;
  const redraw = () => {
    frame ??= requestAnimationFrame(() => niivue.drawScene());
  };
  niivue.updateGLVolume = () => {
    isStale = true;
    redraw();
  };
  niivue.drawScene = () => {
    if (frame !== undefined) cancelAnimationFrame(frame);
    frame = undefined;
    if (!isStale) return draw();
    isStale = false;
    // It draws when it is done.
    update();
  };
  return redraw;
}

/** The longest side of a volume, mm. */
const extentOf = ({ size, affine }: Volume): number =>
  Math.max(...spacingOf(affine).map((mm, axis) => mm * size[axis]));

/** Width of the crosshair, mm: 0.2, less in volumes under 20 mm, and never thinner than a 400th of the longest side. */
const lineWidth = (extent: number): number => Math.max(Math.min(0.2, extent / 100), extent / 400);

/** Discrete colours by label value; unlisted and hidden labels are not drawn. */
function lookupTable(labels: readonly LabelStyle[]) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ['background'] };
  for (const { value, name, color, visible } of labels) {
    const [r, g, b] = rgbOf(color);
    table.R.push(r);
    table.G.push(g);
    table.B.push(b);
    table.A.push(visible ? 255 : 0);
    table.I.push(value);
    table.labels.push(name);
  }
  return table;
}

function rgbOf(color: string): [number, number, number] {
  const bits = Number.parseInt(color.slice(1), 16);
  return [(bits >> 16) & 255, (bits >> 8) & 255, bits & 255];
}

function trianglesByLabel(mesh: Mesh): Map<number, Uint32Array> {
  const count = mesh.triangles.length / 3;
  const lists = new Map<number, number[]>();
  for (let t = 0; t < count; t++) {
    const label = mesh.labels?.[t] ?? 0;
    let list = lists.get(label);
    if (!list) lists.set(label, (list = []));
    list.push(mesh.triangles[3 * t], mesh.triangles[3 * t + 1], mesh.triangles[3 * t + 2]);
  }
  return new Map([...lists].map(([label, list]) => [label, Uint32Array.from(list)]));
}

/** A small octahedron around each point. */
function octahedra(
  points: readonly Vec3[],
  radiusMm: number,
): { vertices: Float32Array; triangles: Uint32Array } {
  const corners = [0, 1, 2].flatMap((axis) =>
    [1, -1].map((sign) => [0, 1, 2].map((i) => (i === axis ? sign * radiusMm : 0))),
  );
  const faces = [0, 1].flatMap((x) =>
    [2, 3].flatMap((y) => [4, 5].map((z) => ((x + y + z) % 2 === 0 ? [x, y, z] : [x, z, y]))),
  );
  return {
    vertices: Float32Array.from(points.flatMap((p) => corners.flatMap((c) => c.map((v, i) => v + p[i])))),
    triangles: Uint32Array.from(
      points.flatMap((_, n) => faces.flatMap((face) => face.map((v) => v + 6 * n))),
    ),
  };
}
