import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/**
 * A data folder that TOMAAT 0.1.0 wrote (data-folder-0.1/: its schema and rows as SQL, its files). The server was killed while one job
 * ran and another one waited.
 */

const fixture = new URL('data-folder-0.1/', import.meta.url);
export const text = (name: string) => readFile(new URL(name, fixture), 'utf8');

/** The key of the fixture: made here, as no file of the repository should look like a secret. */
export const apiKey = `tmt_abcdefghij_${'A'.repeat(43)}`;
export const headers = { authorization: `Bearer ${apiKey}` };
/** The Ed25519 key in the fixture's identity.key: PKCS #8 (RFC 8410) around 32 bytes. */
const identityKey = Buffer.concat([
  Buffer.from('302e020100300506032b657004220420', 'hex'),
  Buffer.alloc(32, 'upgrade test '),
]).toString('base64');
/** RFC 7638, of the public key that 0.1.0 put beside its signatures. */
export const thumbprint = createHash('sha256')
  .update('{"crv":"Ed25519","kty":"OKP","x":"Ong_eNnfldlIfJHGcj7PWhmm5OtqDX_MO1SrOikE-hI"}')
  .digest('base64url');

export const jobs = {
  succeeded: 'dsbD0OXvAvWaBMovbpLo3w',
  failed: 'qTJOGGJoY5Qu97mFkka8YQ',
  canceled: 'wwtSk82IVMQVTbZjw6hBdA',
  running: 'wNzgdDOiIPS0f8oG_gZwiA',
  queued: 'scUeWcjKKs-1-8TqiX0TBg',
};
export const uploads = { part: 'S9OwKUcv3-iFUAqeAtXEPA', whole: 'dVgu3TC0HVaXSS5a9lyjsw' };
export const resultFile = 'blobs/sha256/c94bbb9fcb2f8b349ed6e134bfec06d64d1519f08b9836940304e20b17c4cbc3';

/** What the clients of the fixture sent: 3 × 2 × 2 voxels, (37 i + n) mod 256. */
export const sent = (n: number) =>
  Buffer.concat([
    Buffer.from(
      'ObjectType = Image\nNDims = 3\nDimSize = 3 2 2\nElementSpacing = 1 2 3\nOffset = 5 6 7\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n',
    ),
    Buffer.from(Array.from({ length: 12 }, (_, i) => (i * 37 + n) % 256)),
  ]);
export const brightIn = (n: number) => Array.from({ length: 12 }, (_, i) => Number((i * 37 + n) % 256 > 100));

/** Writes the folder; the files of jobs and uploads, by path, as base64. */
export async function writeOldFolder(dataFolder: string): Promise<Record<string, string>> {
  const files = JSON.parse(await text('files.json')) as Record<string, string>;
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dataFolder, name)), { recursive: true, mode: 0o700 });
    await writeFile(join(dataFolder, name), Buffer.from(content, 'base64'), { mode: 0o600 });
  }
  const pem = `-----BEGIN PRIVATE KEY-----\n${identityKey}\n-----END PRIVATE KEY-----\n`;
  await writeFile(join(dataFolder, 'identity.key'), pem, { mode: 0o600 });
  for (const name of ['audit.jsonl', 'audit.head'])
    await writeFile(join(dataFolder, name), await text(name), { mode: 0o600 });
  const database = new DatabaseSync(join(dataFolder, 'server.db'));
  database.exec('PRAGMA journal_mode = WAL');
  database.exec(await text('server.sql'));
  database.close();
  return files;
}
