import type { Endpoint } from './contract/endpoint.ts';
import { endpoints } from './contract.ts';
import { errorHeaders } from './response-headers.ts';

/**
 * What a page of another origin may read of an answer: every header that the contract declares. (What any page may read
 * without being let, such as Content-Type, needs no declaration; see “CORS-safelisted response-header name” in the Fetch
 * standard.)
 */
export const exposedHeaders: readonly string[] = [
  ...new Set(
    [
      ...errorHeaders,
      ...(Object.values(endpoints) as Endpoint[]).flatMap(({ responses }) =>
        Object.values(responses).flatMap(({ headers = [] }) => headers),
      ),
    ].map((name) => name.toLowerCase()),
  ),
].sort();
