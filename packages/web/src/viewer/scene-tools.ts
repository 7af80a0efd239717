import { type Niivue, SLICE_TYPE } from '@niivue/niivue';
import type { Vec3 } from '@tomaat/core';
import { arrange, type Plane, planes, type View } from './layouts.ts';
import { tileGap } from './scene-look.ts';

/** A plane as it is drawn: its place on the canvas in CSS pixels, and where a world position lies in it. */
export interface DrawnPlane {
  readonly plane: Plane;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** CSS pixels of the canvas for a position, RAS+ mm; the position need not lie in the slice. */
  place(position: Vec3): readonly [number, number];
}

/** What the controls need of the scene: places on the canvas in CSS pixels, positions in RAS+ mm. */
export interface SceneTools {
  /** The plane that the views with one large plane show large. */
  setPlane(plane: Plane): void;
  /** What is drawn at a place: a plane and the position there, or the 3-D view; nothing between the tiles. */
  at(x: number, y: number): { plane: Plane; position: Vec3 } | { plane: '3d' } | undefined;
  /** The planes that the canvas shows now. */
  drawnPlanes(): DrawnPlane[];
  /** Makes everything larger around a place: the slices, or the 3-D view if it is there. */
  zoomAt(x: number, y: number, factor: number): void;
  /** Makes everything larger around the crosshair, or the 3-D view if it is alone. */
  zoom(factor: number): void;
  /** Moves the slices so that what is at the first place goes to the second. */
  pan(from: readonly [number, number], to: readonly [number, number]): void;
  resetZoom(): void;
  /** Turns the 3-D view, degrees. */
  rotate(azimuth: number, elevation: number): void;
  /** What was pressed becomes a gesture, so the next move of the crosshair is not a click. */
  dropPress(): void;
  /** A copy of the canvas as it is drawn now. */
  snapshot(): HTMLCanvasElement;
  /** Calls back after each drawing, until the returned function is called. */
  onDraw(listener: () => void): () => void;
}

const zoomLimits = [0.5, 16] as const;

/** @param dropPress forgets that the pointer was pressed */
export function createSceneTools(
  niivue: Niivue,
  canvas: HTMLCanvasElement,
  dropPress: () => void,
): SceneTools & { setView(view: View): void } {
  let view: View = 'slices';
  let main: Plane = 'axial';
  const listeners = new Set<() => void>();
  const dpr = () => niivue.uiData?.dpr || 1;
  const hasVolume = () => niivue.volumes.length > 0 && niivue.volumes[0].dimsRAS !== undefined;

  const draw = niivue.drawScene.bind(niivue);
  niivue.drawScene = () => {
    divide();
    const drawn = draw();
    for (const listener of listeners) listener();
    return drawn;
  };
  /** The layout follows the canvas and the volume, so it is made for each drawing. */
  function divide(): void {
    niivue.opts.sliceType = view === '3d' ? SLICE_TYPE.RENDER : SLICE_TYPE.MULTIPLANAR;
    const { width, height } = canvas;
    if (!hasVolume() || !(width > 0 && height > 0)) return;
    const room = { width, height, gap: tileGap * dpr() };
    niivue.customLayout = arrange(view, main, extent(), room).map((tile) => ({
      sliceType: tile.of === '3d' ? SLICE_TYPE.RENDER : planes.indexOf(tile.of),
      position: [tile.left / width, tile.top / height, tile.width / width, tile.height / height],
    }));
  }
  /** Along R, A, S as the slices are drawn, mm. */
  function extent(): Vec3 {
    const { extentsMinOrtho: least, extentsMaxOrtho: most } = niivue.volumes[0];
    return [0, 1, 2].map((i) => Math.max(1e-6, most![i] - least![i])) as [number, number, number];
  }
  const worldOf = (frac: ArrayLike<number>): Vec3 => {
    const mm = niivue.frac2mm([frac[0], frac[1], frac[2]], 0, true);
    return [mm[0], mm[1], mm[2]];
  };
  const tileAt = (x: number, y: number) =>
    niivue.screenSlices.findIndex(({ leftTopWidthHeight: [left, top, width, height] }) => {
      const [px, py] = [x * dpr(), y * dpr()];
      const [from, to] = width < 0 ? [left + width, left] : [left, left + width];
      return px >= from && px <= to && py >= top && py <= top + height;
    });
  /** Fractions of the volume at a place; undefined outside of the planes. */
  function fracAt(x: number, y: number): ArrayLike<number> | undefined {
    const tile = tileAt(x, y);
    if (tile < 0 || niivue.screenSlices[tile].axCorSag > SLICE_TYPE.SAGITTAL) return undefined;
    const frac = niivue.screenXY2TextureFrac(x * dpr(), y * dpr(), tile, false);
    return frac[0] === -1 && frac[1] === -1 && frac[2] === -1 ? undefined : frac;
  }
  /** Position in the drawing's own axes, mm: as the world's, but without obliqueness and shear. */
  const drawnMm = (frac: ArrayLike<number>) => niivue.frac2mm([frac[0], frac[1], frac[2]]);
  function zoomRender(factor: number): void {
    niivue.scene.volScaleMultiplier = clamp(niivue.scene.volScaleMultiplier * factor, zoomLimits);
    niivue.drawScene();
  }
  function zoomSlices(around: ArrayLike<number>, factor: number): void {
    const mm = drawnMm(around);
    const pan = niivue.scene.pan2Dxyzmm;
    const before = pan[3];
    pan[3] = clamp(before * factor, zoomLimits);
    for (let i = 0; i < 3; i++) pan[i] += (before - pan[3]) * mm[i];
    niivue.drawScene();
  }

  return {
    setView(next) {
      view = next;
    },
    setPlane(next) {
      if (next === main) return;
      main = next;
      niivue.drawScene();
    },
    at(x, y) {
      const tile = tileAt(x, y);
      if (tile < 0) return undefined;
      const axCorSag: number = niivue.screenSlices[tile].axCorSag;
      if (axCorSag > SLICE_TYPE.SAGITTAL) return { plane: '3d' };
      const frac = fracAt(x, y);
      const isInside = frac && [0, 1, 2].every((i) => frac[i] >= 0 && frac[i] <= 1);
      return isInside ? { plane: planes[axCorSag], position: worldOf(frac) } : undefined;
    },
    drawnPlanes() {
      if (!hasVolume()) return [];
      const scale = dpr();
      return niivue.screenSlices
        .filter(({ axCorSag, fovMM }) => axCorSag <= SLICE_TYPE.SAGITTAL && fovMM.length >= 2)
        .map(({ axCorSag, leftTopWidthHeight: [x, y, w, h], leftTopMM, fovMM }) => {
          const slice: number = axCorSag;
          const isMirrored = w < 0;
          const [left, top, width, height] = [isMirrored ? x + w : x, y, Math.abs(w), h].map(
            (v) => v / scale,
          );
          return {
            plane: planes[slice],
            left,
            top,
            width,
            height,
            place(position: Vec3) {
              const mm = drawnMm(niivue.mm2frac([...position], 0, true));
              const [u, v] = slice === 0 ? [mm[0], mm[1]] : slice === 1 ? [mm[0], mm[2]] : [mm[1], mm[2]];
              const across = (u - leftTopMM[0]) / fovMM[0];
              const down = 1 - (v - leftTopMM[1]) / fovMM[1];
              return [left + (isMirrored ? 1 - across : across) * width, top + down * height] as const;
            },
          };
        });
    },
    zoomAt(x, y, factor) {
      const tile = tileAt(x, y);
      if (tile >= 0 && niivue.screenSlices[tile].axCorSag > SLICE_TYPE.SAGITTAL) zoomRender(factor);
      else zoomSlices(fracAt(x, y) ?? niivue.scene.crosshairPos, factor);
    },
    zoom(factor) {
      if (view === '3d') zoomRender(factor);
      else zoomSlices(niivue.scene.crosshairPos, factor);
    },
    pan(from, to) {
      const [start, end] = [fracAt(...from), fracAt(...to)];
      if (!start || !end || tileAt(...from) !== tileAt(...to)) return;
      const [a, b] = [drawnMm(start), drawnMm(end)];
      const pan = niivue.scene.pan2Dxyzmm;
      for (let i = 0; i < 3; i++) pan[i] += pan[3] * (b[i] - a[i]);
      niivue.drawScene();
    },
    resetZoom() {
      niivue.scene.pan2Dxyzmm = [0, 0, 0, 1];
      niivue.scene.volScaleMultiplier = 1;
      niivue.drawScene();
    },
    rotate(azimuth, elevation) {
      const { renderAzimuth, renderElevation } = niivue.scene;
      niivue.setRenderAzimuthElevation(renderAzimuth + azimuth, renderElevation + elevation);
    },
    dropPress,
    snapshot() {
      const copy = document.createElement('canvas');
      copy.width = canvas.width;
      copy.height = canvas.height;
      // The drawing buffer lasts until the browser shows it: it is drawn and copied in one go.
      niivue.drawScene();
      copy.getContext('2d')!.drawImage(canvas, 0, 0);
      return copy;
    },
    onDraw(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

const clamp = (value: number, [least, most]: readonly [number, number]) =>
  Math.min(most, Math.max(least, value));
