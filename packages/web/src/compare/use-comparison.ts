import { useQuery } from '@tanstack/react-query';
import { TomaatError } from '@tomaat/core';
import { namesOf } from './label-names.ts';
import type { Compared, Reply, Request } from './messages.ts';
import type { Side } from './use-side.ts';

/** Compares two sides once both are there. */
export function useComparison(found: Side | undefined, expected: Side | undefined) {
  return useQuery({
    queryKey: ['comparison', found?.key, expected?.key],
    enabled: found !== undefined && expected !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    structuralSharing: false,
    retry: false,
    queryFn: ({ signal }) =>
      compareInThread(
        {
          found: found!.labelMap,
          expected: expected!.labelMap,
          files: { found: found!.title, expected: expected!.title },
          names: namesOf(found!, expected!),
        },
        signal,
      ),
  });
}

function compareInThread(request: Request, signal: AbortSignal): Promise<Compared> {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
  return new Promise<Compared>((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    worker.onmessage = ({ data }: MessageEvent<Reply>) =>
      'error' in data ? reject(TomaatError.from(data.error)) : resolve(data);
    worker.onerror = () =>
      reject(
        new TomaatError(
          'INTERNAL',
          'The part of this page that compares label maps stopped. Close other pages, and try again.',
        ),
      );
    worker.postMessage(request);
  }).finally(() => worker.terminate());
}
