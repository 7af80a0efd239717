import type { Endpoint } from './contract/endpoint.ts';
import { endpoints } from './contract.ts';
import { errorHeaders } from './response-headers.ts';

/**
 * The response headers that a page of another origin may read: every header that the contract declares. (Headers that
 * any page may read without permission, such as Content-Type, need no declaration; see “CORS-safelisted
 * response-header name” in the Fetch standard.)
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
