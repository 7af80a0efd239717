/** Aborts the work when the user, or the system, asks to stop. */
export class Interrupted extends Error {
  readonly exitCode: number;

  constructor(name: 'SIGINT' | 'SIGTERM') {
    super(name === 'SIGINT' ? 'Interrupted.' : 'Terminated.');
    this.name = 'Interrupted';
    this.exitCode = name === 'SIGINT' ? 130 : 143;
  }
}

/**
 * A terminal sends Ctrl-C to the launcher and to this process, and the launcher passes it on: both count as one. The same
 * applies to a SIGTERM to all processes of a service, whose second copy may be late on a loaded machine.
 */
const echoMs = { SIGINT: 300, SIGTERM: 2000 };

/**
 * A signal that fires at the first Ctrl-C or SIGTERM, with `Interrupted` as its reason; a second one exits at
 * once. Dispose of it to restore the default behaviour.
 */
export function openInterrupt(onFirst: () => void = () => {}): {
  readonly signal: AbortSignal;
  [Symbol.dispose](): void;
} {
  const controller = new AbortController();
  let firstMs = 0;
  const stop = (name: 'SIGINT' | 'SIGTERM') => {
    if (controller.signal.aborted) {
      if (performance.now() - firstMs > echoMs[name]) process.exit(name === 'SIGINT' ? 130 : 143);
      return;
    }
    firstMs = performance.now();
    controller.abort(new Interrupted(name));
    onFirst();
  };
  const int = () => stop('SIGINT');
  const term = () => stop('SIGTERM');
  process.on('SIGINT', int);
  process.on('SIGTERM', term);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      const remove = () => {
        process.off('SIGINT', int);
        process.off('SIGTERM', term);
      };
      // A second copy of the Ctrl-C that ended the work must not interrupt the cleanup.
      const leftMs = firstMs + Math.max(...Object.values(echoMs)) - performance.now();
      if (controller.signal.aborted) setTimeout(remove, Math.max(0, leftMs)).unref();
      else remove();
    },
  };
}
