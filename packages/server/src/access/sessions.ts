import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { KeySchema } from '../store/database/key-schema.ts';
import { lockAlone } from '../store/database/locks.ts';
import type { SessionSchema, SessionTable } from '../store/database/session-schema.ts';
import { findKeyById, hashOf } from './keys.ts';
import { type Principal, principalOf } from './principal.ts';
import type { KeyScope } from './scopes.ts';
import { sealText, unsealText } from './seal.ts';

/**
 * Browser sessions. A session is a random token of 256 bits in a cookie; the table keeps only its SHA-256, so a
 * copy of the database gives no access. A session that was opened with an API key has the key's permissions as long as the key is valid.
 */

/** An unused session ends after this time. */
export const idleMs = 8 * 3_600_000;
/** A session of a key ends after this time, even if it is in use. */
export const keySessionMs = 7 * 86_400_000;
/** The same for a session of an issuer, which may have closed the account since. */
export const oidcSessionMs = 86_400_000;
export const maxSessionsPerOwner = 20;
/** Not every request records the use of the session on disk. */
const touchEveryMs = 60_000;

export interface Session {
  readonly principal: Principal;
  readonly label: string;
  /** When it ends even if in use. */
  readonly expiresTime: string;
}

export type NewSession = { readonly label: string; readonly owner: string } & (
  | { readonly keyId: string }
  | { readonly basis: string; readonly scopes: readonly KeyScope[]; readonly idToken?: string }
);

/** An ended session. */
export interface EndedSession {
  readonly kind: 'key' | 'oidc';
  /** The ID token by which the issuer knows its own session. */
  readonly idToken?: string;
}

export interface Sessions {
  /**
   * Opens a session and returns its token, which appears only here. Beyond the limit, the owner's least recently used
   * session ends. `trx`: the transaction of which it is part.
   */
  open(session: NewSession, trx?: Kysely<SessionSchema & KeySchema>): Promise<string>;
  /** The session of a token, if it is still valid. */
  find(token: string): Promise<Session | undefined>;
  /** Ends a session and returns it; undefined if it did not exist. */
  close(token: string): Promise<EndedSession | undefined>;
  /** Deletes ended sessions. */
  sweep(): Promise<void>;
}

export interface SessionsOptions {
  readonly db: Kysely<SessionSchema & KeySchema>;
  /** The digest of the current OIDC settings; if missing, sessions of an issuer have ended. */
  readonly basis?: string;
  readonly now?: () => number;
}

const tokenForm = /^[A-Za-z0-9_-]{43}$/;

export function createSessions({ db, basis, now = Date.now }: SessionsOptions): Sessions {
  return {
    async open(session, trx) {
      const token = randomBytes(32).toString('base64url');
      const time = now();
      const ofKey = 'keyId' in session;
      const row: SessionTable = {
        hash: hashOf(token),
        owner: session.owner,
        label: sealText(session.label, token),
        scopes: ofKey ? '' : session.scopes.join(','),
        key_id: ofKey ? session.keyId : null,
        basis: ofKey ? null : session.basis,
        created_ms: time,
        used_ms: time,
        expires_ms: time + (ofKey ? keySessionMs : oidcSessionMs),
        id_token: ofKey || session.idToken === undefined ? null : seal(session.idToken, token),
      };
      const insert = async (at: Kysely<SessionSchema & KeySchema>) => {
        await lockAlone(at, ['sessionsOf', session.owner]);
        await sql`DELETE FROM session WHERE hash IN (
          SELECT hash FROM session WHERE owner = ${session.owner}
          ORDER BY used_ms DESC, created_ms DESC LIMIT 1000000 OFFSET ${maxSessionsPerOwner - 1})`.execute(
          at,
        );
        await at.insertInto('session').values(row).execute();
      };
      await (trx ? insert(trx) : db.transaction().execute(insert));
      return token;
    },

    async find(token) {
      if (!tokenForm.test(token)) return undefined;
      const hash = hashOf(token);
      const row = await db.selectFrom('session').selectAll().where('hash', '=', hash).executeTakeFirst();
      const time = now();
      if (!row || time >= row.expires_ms || time >= row.used_ms + idleMs) return undefined;
      const key = row.key_id === null ? undefined : await findKeyById(db, row.key_id, time);
      if (row.key_id === null ? row.basis !== basis : key === undefined) return undefined;
      if (time - row.used_ms >= touchEveryMs) {
        await db.updateTable('session').set({ used_ms: time }).where('hash', '=', hash).execute();
      }
      const endsMs = Math.min(
        row.expires_ms,
        key?.expiresTime ? Date.parse(key.expiresTime) : row.expires_ms,
      );
      return {
        principal: key
          ? principalOf(key, 'session')
          : { owner: row.owner, scopes: row.scopes.split(',') as KeyScope[], via: 'session' },
        label: unsealText(row.label, token) ?? row.owner,
        expiresTime: new Date(endsMs).toISOString(),
      };
    },

    async close(token) {
      if (!tokenForm.test(token)) return undefined;
      const row = await db
        .deleteFrom('session')
        .where('hash', '=', hashOf(token))
        .returning(['key_id', 'id_token'])
        .executeTakeFirst();
      if (!row) return undefined;
      if (row.key_id !== null) return { kind: 'key' };
      return { kind: 'oidc', idToken: row.id_token === null ? undefined : unseal(row.id_token, token) };
    },

    async sweep() {
      const time = now();
      await sql`DELETE FROM session WHERE expires_ms <= ${time} OR used_ms <= ${time - idleMs}
        OR (key_id IS NULL AND basis IS DISTINCT FROM ${basis ?? null})
        OR (key_id IS NOT NULL AND key_id NOT IN (
          SELECT id FROM api_key WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ${time})))`.execute(
        db,
      );
    },
  };
}

/*
 * An ID token identifies a person. Only the cookie can decrypt what the database holds: AES-256-GCM with a
 * key derived (HKDF-SHA-256) from the session's token, of which the database has only the hash. As the key is
 * used once, for this one text, a fixed nonce would do; a random one costs nothing. Layout: nonce (12 bytes), tag (16), text.
 */
const sealKey = (token: string) =>
  new Uint8Array(hkdfSync('sha256', token, new Uint8Array(), 'tomaat session id token', 32));

function seal(text: string, token: string): Uint8Array {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', sealKey(token), nonce);
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
}

function unseal(sealed: Uint8Array, token: string): string | undefined {
  try {
    const decipher = createDecipheriv('aes-256-gcm', sealKey(token), sealed.subarray(0, 12));
    decipher.setAuthTag(sealed.subarray(12, 28));
    return decipher.update(sealed.subarray(28), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    return undefined; // Damaged: the logout continues without it.
  }
}
