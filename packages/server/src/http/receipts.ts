import { TomaatError } from '@tomaat/core';
import type { ServerContext } from './context.ts';

/** The signed receipt of a settled job: a compact JWS, the same at every request. */
export async function signedReceipt(
  id: string,
  { jobs, identity }: Pick<ServerContext, 'jobs' | 'identity'>,
): Promise<string> {
  const receipt = await jobs.receipt(id);
  if (receipt) return identity.sign('tomaat-receipt+jws', receipt);
  throw new TomaatError('NOT_FOUND', 'This job has no receipt: its service is no longer offered here.');
}

/** The `Link` header that says where a receipt can be fetched. */
export const receiptLink = (address: string): string =>
  `<${address}>; rel="tomaat-receipt"; type="application/jose"`;
