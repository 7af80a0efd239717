import type { KeyTable } from '../src/store/database/key-schema.ts';
import type { SessionTable } from '../src/store/database/session-schema.ts';

/** Rows that have something else in every column: of a key and of a session, as servers and registries store them. */

export const keyRow: KeyTable = {
  id: 'k1',
  hash: Uint8Array.of(1, 2),
  label: 'Ward 3',
  scopes: 'predict',
  made_by: 'operator',
  created_ms: 1000,
  expires_ms: 2000,
  revoked_ms: 1500,
  max_jobs: 4,
  per_day: 50,
};

export const sessionRow: SessionTable = {
  hash: Uint8Array.of(3, 4),
  owner: 'key:k1',
  label: 'sealed',
  scopes: 'predict',
  key_id: 'k1',
  basis: null,
  created_ms: 1000,
  used_ms: 1100,
  expires_ms: 2000,
  id_token: Uint8Array.of(5, 6),
};
