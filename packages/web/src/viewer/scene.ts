import { Niivue, NVImage, NVMesh } from '@niivue/niivue';
import {
  type Grid,
  type Mesh,
  sameGrid,
  spacingOf,
  TomaatError,
  type Vec3,
  type Volume,
  voxelCount,
} from '@tomaat/core';
import { firstVoxels, isSoftwareDrawn } from './first-detail.ts';
import type { LabelStyle } from './labels.ts';
import type { View } from './layouts.ts';
import type { Reduction } from './prepare.ts';
import { prepareApart } from './prepare-apart.ts';
import { factorFor, reducedGrid } from './reduce.ts';
import { backgroundColor, crosshairColor, crosshairOf, letterColor, letterPx } from './scene-look.ts';
import { lookupTable, octahedra, rgbOf, trianglesByLabel } from './scene-shapes.ts';
import { compilePrograms, drawLabelsDiscrete, type Layer, rebuildOnlyChanged } from './scene-textures.ts';
import { createSceneTools, type SceneTools } from './scene-tools.ts';
import { extentOf, stacksOf } from './stack.ts';
import type { ValueRange, Window } from './windows.ts';

/* The viewer: NiiVue and what the page needs of it. This file and all of NiiVue are loaded only where a volume is shown. */

/** How fine the slices are that are drawn. */
export interface Detail {
  /** A drawn voxel is a block of so many voxels along each axis; 1: all are drawn. */
  readonly factor: number;
  /** The browser draws without a graphics card. */
  readonly isSoftware: boolean;
}

/** The values that are drawn black and white. */
type Shown = readonly [low: number, high: number];

export interface Scene extends SceneTools {
  /**
   * The grey volume; slices follow its grid. The labels stay. The range of all its values; undefined if a later scan was
   * set meanwhile.
   */
  setScan(volume: Volume, window: Window): Promise<ValueRange | undefined>;
  /**
   * The label map over it, in discrete colours; undefined removes it.
   *
   * @param labels called when the map is drawn: what is known of its labels by then
   */
  setLabels(volume: Volume | undefined, labels: () => readonly LabelStyle[]): Promise<void>;
  /** How the scan, or without one the label map, is drawn. */
  detail(): Detail;
  /** Draws every voxel. The window, the view and the crosshair stay. */
  drawFully(): Promise<void>;
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
  /** Takes the size that its canvas has now. */
  resize(): void;
  close(): void;
}

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
    backColor: [...backgroundColor],
    crosshairColor: [...crosshairColor],
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
    fontMinPx: letterPx,
    fontColor: [...letterColor],
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
  drawLabelsDiscrete(niivue);
  await compilePrograms(niivue);
  const { rebuilds, redraw, touch } = rebuildOnlyChanged(niivue);
  // For the console, and for tests that examine pixels and count textures.
  Object.assign(canvas, { niivue, rebuilds });
  const isSoftware = isSoftwareDrawn(niivue.gl);
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
  const { setView, ...tools } = createSceneTools(niivue, canvas, dropPress);

  let scan: NVImage | undefined;
  let overlay: NVImage | undefined;
  /** What `scan` and `overlay` are drawn from; no scan under labels alone. */
  let source: { scan?: Volume; labels?: Volume } = {};
  let factor = 1;
  /** The grid of `scan`, and of the scan that was asked for last: the labels are drawn on it. */
  let grid: Grid | undefined;
  let nextGrid: Grid | undefined;
  let maxVoxels = firstVoxels();
  /** The window that was set last for the scan. */
  let shown: Shown = [0, 1];
  /** The last scan and label map that were asked for: an older one that is ready later is dropped. */
  const turn = { scan: 0, labels: 0 };
  let scanLoading: Promise<unknown> = Promise.resolve();
  let opacity = 0.55;
  /** The labels that `overlay` is drawn with. */
  let styles: readonly LabelStyle[] | undefined;
  const surfaces = new Map<number, NVMesh>();
  let points: NVMesh | undefined;
  /** mm. */
  let pointRadius = 2.5;

  /** @param window NiiVue looks for one where none is given */
  async function imageOf(volume: Volume, name: string, by: Reduction, window?: Shown) {
    const { bytes, lowest, highest } = await prepareApart(volume, by);
    const [cal_min, cal_max] = window ?? [];
    const image = await NVImage.loadFromUrl({
      url: bytes.buffer,
      name,
      cal_min,
      cal_max,
      colorbarVisible: false,
    });
    return { image, lowest, highest };
  }
  const labelImage = async (volume: Volume, grid: Grid) =>
    (await imageOf(volume, 'labels.nii', { kind: 'labels', grid })).image;
  /** The label map that is shown, on the grid of another scan. */
  async function overlayOn(asked: Grid): Promise<NVImage | undefined> {
    for (;;) {
      const { labels } = source;
      if (!labels || !grid || sameGrid(grid, asked)) return overlay;
      const image = await labelImage(labels, asked);
      if (labels === source.labels) return image;
    }
  }

  /** Puts the layers in their order, the scan below; only `changed` is built. */
  const place = (below: NVImage, above: NVImage | undefined, changed: readonly Layer[]) => {
    scan = below;
    overlay = above;
    niivue.volumes = above ? [below, above] : [below];
    niivue.back = below;
    niivue.overlays = niivue.volumes.slice(1);
    touch(...changed);
  };

  const fitTo = (volume: Volume) => {
    const extent = extentOf(volume, stacksOf(volume));
    const { lineMm, gap } = crosshairOf(extent);
    niivue.opts.crosshairWidth = lineMm;
    // It is rebuilt when it is drawn.
    if (niivue.crosshairs3D) niivue.crosshairs3D.mm![0] = Number.NaN;
    niivue.opts.crosshairGap = gap;
    pointRadius = Math.max(
      Math.min(2.5, Math.max(...extent) / 40),
      0.6 * Math.max(...spacingOf(volume.affine)),
    );
  };

  /** The opacity is a number of the shaders: no texture is built for it. */
  const fade = () => {
    niivue.overlayAlphaShader = opacity;
    niivue.opts.renderOverlayBlend = opacity;
    redraw();
  };

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
    setScan(volume, { level, width }) {
      const mine = ++turn.scan;
      const isOther = volume !== source.scan;
      const window: Shown = [level - width / 2, level + width / 2];
      if (isOther) maxVoxels = firstVoxels();
      const drawn = factorFor(volume.size, maxVoxels);
      const asked: Grid = reducedGrid(volume, drawn);
      nextGrid = asked;
      const load = async () => {
        const { image, lowest, highest } = await imageOf(
          volume,
          'scan.nii',
          { kind: 'mean', factor: drawn },
          window,
        );
        if (mine !== turn.scan) return undefined;
        const above = await overlayOn(asked);
        if (mine !== turn.scan) return undefined;
        if (above !== overlay) above?.setColormapLabel(lookupTable(styles ?? []));
        if (isOther) shown = window;
        [image.cal_min, image.cal_max] = shown;
        [factor, grid] = [drawn, asked];
        source = { ...source, scan: volume };
        fitTo(volume);
        place(image, above, ['scan', 'labels']);
        return { lowest, highest };
      };
      const loading = load().catch((cause) => {
        if (mine === turn.scan) nextGrid = source.scan && grid;
        throw cause;
      });
      scanLoading = loading.catch(() => undefined);
      return loading;
    },
    async setLabels(volume, labels) {
      const mine = ++turn.labels;
      if (!volume) {
        source = { scan: source.scan };
        if (overlay) place(scan!, undefined, ['labels']);
        return;
      }
      // The scan is drawn first; preparing labels would slow it.
      await scanLoading;
      await new Promise((resolve) => setTimeout(resolve));
      if (mine !== turn.labels) return;
      const drawn = factorFor(volume.size, maxVoxels);
      const wasAlone = nextGrid === undefined;
      const asked: Grid = nextGrid ?? reducedGrid(volume, drawn);
      const [image] = await Promise.all([labelImage(volume, asked), scanLoading]);
      if (mine !== turn.labels) return;
      let below = scan;
      const isAlone = wasAlone && nextGrid === undefined;
      if (isAlone) {
        const blank = { ...asked, components: 1, voxels: new Uint8Array(voxelCount(asked)) };
        ({ image: below } = await imageOf(blank, 'scan.nii', { kind: 'mean', factor: 1 }));
        if (mine !== turn.labels) return;
      }
      // A scan came meanwhile, or the one that was waited for did not.
      const isFit = isAlone ? nextGrid === undefined : grid && sameGrid(grid, asked);
      if (!isFit) return scene.setLabels(volume, labels);
      styles = labels();
      image.setColormapLabel(lookupTable(styles));
      if (isAlone) {
        [factor, grid] = [drawn, asked];
        fitTo(volume);
      }
      source = { ...source, labels: volume };
      place(below!, image, isAlone ? ['scan', 'labels'] : ['labels']);
      fade();
      niivue.drawScene();
    },
    detail: () => ({ factor, isSoftware }),
    async drawFully() {
      maxVoxels = Number.POSITIVE_INFINITY;
      const { scan: volume, labels } = source;
      if (factor === 1) return;
      if (volume)
        await scene.setScan(volume, { level: (shown[0] + shown[1]) / 2, width: shown[1] - shown[0] });
      else if (labels) await scene.setLabels(labels, () => styles ?? []);
    },
    styleLabels(labels) {
      if (overlay && labels !== styles) {
        overlay.setColormapLabel(lookupTable(labels));
        styles = labels;
        touch('labels');
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
      fade();
    },
    setWindow(low, high) {
      const isSame = (a: number, b: number) => Math.abs(a - b) <= 1e-6 * Math.abs(high - low);
      shown = [low, high];
      if (!scan || (isSame(low, scan.cal_min!) && isSame(high, scan.cal_max!))) return;
      scan.cal_min = low;
      scan.cal_max = high;
      touch('scan');
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
      // Parts of bodies within so many mm of a slice are drawn in it.
      niivue.opts.meshThicknessOn2D = positions.length > 0 ? pointRadius : 0;
      if (positions.length === 0) return;
      const { vertices, triangles } = octahedra(positions, pointRadius);
      points = addMesh(vertices, triangles, 'points', '#ffd43b');
    },
    setView(view) {
      setView(view);
      redraw();
    },
    goTo(position) {
      if (!scan) return;
      // true: the position is in world coordinates, even if the slices are drawn along the voxels.
      niivue.scene.crosshairPos = niivue.mm2frac([...position], 0, true);
      niivue.drawScene();
      niivue.createOnLocationChange();
    },
    resize: () => niivue.resizeListener(),
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
