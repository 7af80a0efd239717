import { useSyncExternalStore } from 'react';

/** The number of logins since this page was loaded, for requests that must be repeated after a login. */

let logins = 0;
const listeners = new Set<() => void>();

export function noteLogin(): void {
  logins++;
  for (const listener of listeners) listener();
}

/** Increases with each login: an effect that depends on it runs again. */
export const useLogins = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => logins,
  );
