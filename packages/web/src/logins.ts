import { useSyncExternalStore } from 'react';

/** The number of logins since this page was loaded, for requests that must be repeated then. */

let logins = 0;
const listeners = new Set<() => void>();

export function noteLogin(): void {
  logins++;
  for (const listener of listeners) listener();
}

/** Grows with each login: an effect that depends on it runs again. */
export const useLogins = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => logins,
  );
