import type { Vec3 } from '@tomaat/core';
import type { Scene } from './scene.ts';
import { canvasName } from './scene-look.ts';

/* Where scenes are opened: in the viewer, or ahead of it. A scene moves with the element that holds its canvas. */

type OnMove = (position: Vec3, clicked: boolean) => void;

export interface PlacedScene {
  readonly scene: Scene;
  close(): void;
}
interface Opened {
  readonly holder: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly scene: Scene;
  onMove: OnMove;
}

let ahead: Promise<Opened> | undefined;
/** Scenes that are shown, or about to be. */
let shown = 0;

/**
 * Opens the scene that the next `placeScene()` takes, while there is nothing to draw: without a graphics card WebGL
 * takes a second to start. Not beside a scene that is shown. Where it does not start nothing is said: the next scene is
 * opened, and fails, where it is seen.
 */
export function openAhead(): void {
  if (ahead || shown > 0) return;
  const hidden = document.createElement('div');
  hidden.className = 'scene-ahead';
  document.body.append(hidden);
  const opening = open(hidden);
  ahead = opening;
  opening
    .catch(() => {
      if (ahead === opening) ahead = undefined;
    })
    .finally(() => hidden.remove());
}

/** Shows a scene in an element. Throws as `openScene()` does. */
export async function placeScene(place: HTMLElement, onMove: OnMove): Promise<PlacedScene> {
  shown++;
  let opened: Opened;
  try {
    opened = (await takeAhead()) ?? (await open(place));
  } catch (error) {
    shown--;
    throw error;
  }
  opened.onMove = onMove;
  if (opened.holder.parentElement !== place) {
    place.append(opened.holder);
    opened.scene.resize();
  }
  return {
    scene: opened.scene,
    close() {
      shown--;
      opened.scene.close();
      opened.holder.remove();
    },
  };
}

async function takeAhead(): Promise<Opened | undefined> {
  const opening = ahead;
  ahead = undefined;
  const opened = await opening?.catch(() => undefined);
  // A browser may take the context of a canvas that was not seen for long.
  return opened?.canvas.getContext('webgl2')?.isContextLost() ? undefined : opened;
}

async function open(place: HTMLElement): Promise<Opened> {
  const holder = document.createElement('div');
  holder.className = 'canvas-holder';
  const canvas = document.createElement('canvas');
  canvas.setAttribute('aria-label', canvasName);
  holder.append(canvas);
  place.append(holder);
  try {
    const { openScene } = await import('./scene.ts');
    const scene = await openScene(canvas, (position, clicked) => opened.onMove(position, clicked));
    const opened: Opened = { holder, canvas, scene, onMove: () => undefined };
    return opened;
  } catch (error) {
    holder.remove();
    throw error;
  }
}
