import { type RefObject, useEffect, useEffectEvent } from 'react';

/** The keys of the viewer, while its canvas has the focus; the help lists them in this order. */
export interface KeyCommand {
  /** `KeyboardEvent.key`, with "Shift+" if shift must be held. */
  readonly keys: readonly string[];
  /** As the help names them. */
  readonly shown: string;
  readonly does: string;
  run(key: string): void;
}

/** Keys with a modifier of the browser or the system are left to them. */
export function useKeys(frame: RefObject<HTMLElement | null>, commands: readonly KeyCommand[]): void {
  const pressed = useEffectEvent((event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = event.shiftKey && event.key.length > 1 ? `Shift+${key}` : key;
    const command = commands.find(({ keys }) => keys.includes(name));
    if (!command) return;
    event.preventDefault();
    command.run(name);
  });
  useEffect(() => {
    const element = frame.current!;
    const listen = (event: KeyboardEvent) => {
      if (!(event.target instanceof HTMLCanvasElement)) return;
      // NiiVue has keys of its own, which know nothing of the page's controls.
      event.stopPropagation();
      if (event.type === 'keydown') pressed(event);
    };
    for (const type of ['keydown', 'keyup'] as const)
      element.addEventListener(type, listen, { capture: true });
    return () => {
      for (const type of ['keydown', 'keyup'] as const)
        element.removeEventListener(type, listen, { capture: true });
    };
  }, [frame]);
}
