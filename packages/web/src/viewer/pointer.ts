import type { Vec3 } from '@tomaat/core';
import { type RefObject, useEffect, useEffectEvent } from 'react';
import type { Plane } from './layouts.ts';
import type { Scene } from './scene.ts';

export const tools = ['crosshair', 'window', 'ruler'] as const;
export type Tool = (typeof tools)[number];

/** A place on the canvas, CSS pixels. */
type Place = readonly [number, number];

export interface PointerActions {
  readonly tool: Tool;
  /** Whether a finger moves in the picture; otherwise it scrolls the page. */
  readonly takesTouch: boolean;
  onTap(): void;
  onWheel(plane: Plane, steps: number): void;
  onEnlarge(what: Plane | '3d'): void;
  /** A drag that changes the window: CSS pixels since its start. */
  onWindow(phase: 'start' | 'move', across: number, down: number): void;
  onRuler(phase: 'start' | 'move', plane: Plane, position: Vec3): void;
  onRulerEnd(): void;
}

type GestureKind = 'window' | 'pan' | 'turn' | 'crosshair' | 'ruler';
interface Gesture {
  readonly kind: GestureKind;
  readonly start: Place;
  last: Place;
  /** Of a ruler. */
  readonly plane?: Plane;
}

/** A finger that moves less than this has tapped, CSS pixels. */
const tapPx = 8;
const zoomPerPx = 0.0025;
const pxPerSlice = 30;

/**
 * Mouse and fingers on the canvas. NiiVue keeps the crosshair and the 3-D view under the left button; all else happens here,
 * before NiiVue sees it: it would change the window on its own.
 */
export function usePointer(
  frame: RefObject<HTMLElement | null>,
  scene: Scene | undefined,
  actions: PointerActions,
): void {
  const act = useEffectEvent(<T>(call: (actions: PointerActions) => T): T => call(actions));
  useEffect(() => {
    if (!scene) return;
    return listen(frame.current!, scene, act);
  }, [frame, scene]);
}

function listen(
  frame: HTMLElement,
  scene: Scene,
  act: <T>(call: (actions: PointerActions) => T) => T,
): () => void {
  const ends = new AbortController();
  const on = <K extends keyof HTMLElementEventMap>(
    type: K,
    listener: (event: HTMLElementEventMap[K]) => void,
  ) =>
    frame.addEventListener(
      type,
      (event) => {
        if (event.target instanceof HTMLCanvasElement) listener(event);
      },
      { capture: true, passive: false, signal: ends.signal },
    );
  const placeOf = (event: MouseEvent): Place => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  /** Gestures of one pointer. */
  let gesture: Gesture | undefined;
  const fingers = new Map<number, Place>();
  let scrolled = 0;

  function begin(event: PointerEvent, kind: GestureKind): void {
    const place = placeOf(event);
    scene.dropPress();
    if (kind === 'ruler') {
      const hit = scene.at(...place);
      if (!hit || hit.plane === '3d') return;
      gesture = { kind, plane: hit.plane, last: place, start: place };
      act(({ onRuler }) => onRuler('start', hit.plane, hit.position));
      return;
    }
    gesture = { kind, last: place, start: place };
    if (kind === 'window') act(({ onWindow }) => onWindow('start', 0, 0));
  }

  function move(place: Place): void {
    if (!gesture) return;
    const { kind, last, start } = gesture;
    gesture.last = place;
    if (kind === 'window') act(({ onWindow }) => onWindow('move', place[0] - start[0], place[1] - start[1]));
    else if (kind === 'pan') scene.pan(last, place);
    else if (kind === 'turn') scene.rotate(place[0] - last[0], place[1] - last[1]);
    else {
      const hit = scene.at(...place);
      if (!hit || hit.plane === '3d') return;
      if (kind === 'crosshair') scene.goTo(hit.position);
      else if (hit.plane === gesture.plane) act(({ onRuler }) => onRuler('move', hit.plane, hit.position));
    }
  }

  function finish(): void {
    if (gesture?.kind === 'ruler') act(({ onRulerEnd }) => onRulerEnd());
    gesture = undefined;
  }

  function mouseGesture(event: PointerEvent): GestureKind | undefined {
    if (event.button === 1 || (event.button === 0 && event.shiftKey)) return 'pan';
    if (event.button === 2 || (event.button === 0 && event.ctrlKey)) return 'window';
    if (event.button !== 0 || scene.at(...placeOf(event))?.plane === '3d') return undefined;
    const tool = act(({ tool }) => tool);
    return tool === 'crosshair' ? undefined : tool;
  }

  let ownsMouse = false;
  on('pointerdown', (event) => {
    if (event.pointerType === 'touch') {
      fingers.set(event.pointerId, placeOf(event));
      if (fingers.size > 1) scene.dropPress();
      return;
    }
    const kind = mouseGesture(event);
    ownsMouse = kind !== undefined;
    if (!kind) return;
    event.stopPropagation();
    frame.querySelector('canvas')?.focus({ preventScroll: true });
    (event.target as Element).setPointerCapture(event.pointerId);
    begin(event, kind);
  });
  on('mousedown', (event) => {
    if (!ownsMouse) return;
    event.stopPropagation();
    event.preventDefault();
  });
  on('pointermove', (event) => {
    if (event.pointerType === 'touch') moveFinger(event);
    else move(placeOf(event));
  });
  on('pointerup', (event) => {
    if (event.pointerType === 'touch') liftFinger(event, false);
    else finish();
  });
  on('pointercancel', (event) => {
    if (event.pointerType === 'touch') liftFinger(event, true);
    else finish();
  });

  function moveFinger(event: PointerEvent): void {
    const before = fingers.get(event.pointerId);
    if (!before || !act(({ takesTouch }) => takesTouch)) return;
    const place = placeOf(event);
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)![1];
      fingers.set(event.pointerId, place);
      finish();
      pinch(before, place, other);
      return;
    }
    if (fingers.size > 2) return;
    if (!gesture) {
      if (Math.hypot(place[0] - before[0], place[1] - before[1]) < tapPx) return;
      const { plane } = scene.at(...before) ?? {};
      if (plane === undefined) return;
      begin(event, plane === '3d' ? 'turn' : act(({ tool }) => tool));
    }
    move(place);
  }
  function pinch(before: Place, place: Place, other: Place): void {
    const length = (a: Place, b: Place) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    const middle = (a: Place, b: Place): Place => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    scene.pan(middle(before, other), middle(place, other));
    scene.zoomAt(...middle(place, other), length(place, other) / Math.max(1, length(before, other)));
  }
  function liftFinger(event: PointerEvent, isCanceled: boolean): void {
    const isTap = !isCanceled && fingers.size === 1 && !gesture;
    fingers.delete(event.pointerId);
    finish();
    if (isTap) act(({ onTap }) => onTap());
  }
  // NiiVue would keep the page from scrolling, and reset the window after a long press.
  for (const type of ['touchstart', 'touchmove', 'touchend', 'touchcancel'] as const)
    on(type, (event) => event.stopPropagation());

  on('wheel', (event) => {
    event.stopPropagation();
    const place = placeOf(event);
    const hit = scene.at(...place);
    event.preventDefault();
    const px = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1);
    if (event.ctrlKey || event.metaKey || hit?.plane === '3d') {
      scene.zoomAt(...place, Math.exp(-px * zoomPerPx));
      return;
    }
    if (!hit) return;
    const { plane } = hit;
    // A notch of a wheel is one slice; the small steps of a touch pad add up.
    scrolled = Math.abs(px) >= 50 ? Math.sign(px) * pxPerSlice : scrolled + px;
    const steps = Math.trunc(scrolled / pxPerSlice);
    scrolled -= steps * pxPerSlice;
    if (steps !== 0) act(({ onWheel }) => onWheel(plane, -steps));
  });
  on('dblclick', (event) => {
    event.stopPropagation();
    const hit = scene.at(...placeOf(event));
    if (hit) act(({ onEnlarge }) => onEnlarge(hit.plane));
  });
  on('contextmenu', (event) => {
    event.preventDefault();
    event.stopPropagation();
  });
  return () => ends.abort();
}
