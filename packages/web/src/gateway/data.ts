import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { createGatewayClient, type GatewaySeries, type GatewaySeriesState } from '@tomaat/client';
import { baseUrl } from '../base.ts';

/** What the page asks its gateway; it asks again every few seconds while it is seen. */

export const gateway = createGatewayClient({ baseUrl });

const refetchInterval = 5000;

export interface Filter {
  readonly state?: GatewaySeriesState;
  readonly rule?: string;
}

export const useSummary = () =>
  useQuery({ queryKey: ['summary'], queryFn: ({ signal }) => gateway.summary({ signal }), refetchInterval });

export const useSeries = (filter: Filter) =>
  useInfiniteQuery({
    queryKey: ['series', filter],
    queryFn: ({ signal, pageParam }) => gateway.series({ ...filter, before: pageParam, signal }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: ({ next }) => next,
    refetchInterval,
    // The rows of another filter stay until those of this one are there.
    placeholderData: (before) => before,
  });

export type Action = 'retry' | 'drop';

/** Does it and shows what became of it. */
export function useAct(): (action: Action, row: GatewaySeries) => Promise<GatewaySeries> {
  const queries = useQueryClient();
  return async (action, { id }) => {
    try {
      return await gateway[action](id);
    } finally {
      await queries.invalidateQueries();
    }
  };
}
