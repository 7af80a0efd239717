import { type RefObject, useEffect, useLayoutEffect, useRef } from 'react';
import { flushSync } from 'react-dom';

/** Slices are seen for less than a second before the scene reacts; nobody does more meanwhile. */
const mostEvents = 200;

const types = [
  'keydown',
  'keyup',
  'pointerdown',
  'pointermove',
  'pointerup',
  'mousedown',
  'mousemove',
  'mouseup',
  'wheel',
  'dblclick',
  'contextmenu',
] as const;

/**
 * Keeps what keyboard and mouse do while slices are seen and the scene does not react yet, and passes it on in its order
 * when it does: both show the same slices in the same places. Fingers scroll the page meanwhile.
 */
export function useHeldInput(frame: RefObject<HTMLElement | null>, isHeld: boolean, isLive: boolean): void {
  const held = useRef<Held[]>([]);
  useEffect(() => {
    if (!isHeld) return;
    const ends = new AbortController();
    held.current = [];
    const listen = (event: Event) => {
      if (event.target instanceof HTMLCanvasElement && isForPicture(event))
        hold(event, event.target, held.current);
    };
    for (const type of types)
      frame.current!.addEventListener(type, listen, { capture: true, passive: false, signal: ends.signal });
    return () => ends.abort();
  }, [frame, isHeld]);
  useEffect(() => {
    if (!isLive) return;
    // After the listeners of this commit are there.
    const soon = setTimeout(() => {
      const canvas = sceneCanvas(frame.current!);
      // One after the other: each step goes on from the last one's position.
      for (const one of held.current.splice(0)) flushSync(() => canvas && repeat(one, canvas));
    });
    return () => clearTimeout(soon);
  }, [frame, isLive]);
  useKeptFocus(frame, isHeld, isLive);
}

const sceneCanvas = (frame: HTMLElement) => frame.querySelector<HTMLElement>('.canvas-holder canvas');

function isForPicture(event: Event): boolean {
  if (event instanceof PointerEvent) return event.pointerType !== 'touch';
  if (!(event instanceof KeyboardEvent)) return true;
  return event.key !== 'Tab' && !event.ctrlKey && !event.metaKey && !event.altKey;
}

interface Held {
  readonly event: Event;
  /** Where the picture was, CSS pixels of the window: it may have moved since. */
  readonly left: number;
  readonly top: number;
}

function hold(event: Event, canvas: HTMLElement, held: Held[]): void {
  event.stopImmediatePropagation();
  // These give the focus.
  if (event.type !== 'pointerdown' && event.type !== 'mousedown') event.preventDefault();
  const isRepeated = event.type.endsWith('move') && held.at(-1)?.event.type === event.type;
  if (isRepeated) held.pop();
  const { left, top } = canvas.getBoundingClientRect();
  if (held.length < mostEvents) held.push({ event, left, top });
}

function repeat({ event, left, top }: Held, canvas: HTMLElement): void {
  const init: Record<string, unknown> = {};
  for (const name in event) init[name] = event[name as keyof Event];
  if (event instanceof MouseEvent) {
    const now = canvas.getBoundingClientRect();
    init.clientX = event.clientX + now.left - left;
    init.clientY = event.clientY + now.top - top;
  }
  canvas.dispatchEvent(new (event.constructor as typeof Event)(event.type, init));
}

/** The canvas that has the slices has the focus that the other one had: a hidden or removed one loses it. */
function useKeptFocus(frame: RefObject<HTMLElement | null>, isHeld: boolean, isLive: boolean): void {
  const isInPicture = useRef(false);
  useEffect(() => {
    const follow = ({ target }: FocusEvent) => {
      isInPicture.current = target instanceof HTMLCanvasElement && frame.current!.contains(target);
    };
    document.addEventListener('focusin', follow);
    return () => document.removeEventListener('focusin', follow);
  }, [frame]);
  useLayoutEffect(() => {
    const { activeElement } = document;
    const isLost = activeElement === document.body || activeElement instanceof HTMLCanvasElement;
    if (!isInPicture.current || !isLost || !(isHeld || isLive)) return;
    const first = frame.current!.querySelector<HTMLElement>('.first-slices');
    (first ?? sceneCanvas(frame.current!))?.focus({ preventScroll: true });
  }, [frame, isHeld, isLive]);
}
