import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CompactSign, exportJWK, generateKeyPair } from 'jose';

const sha256Of = (text: string) => createHash('sha256').update(text).digest('hex');

/**
 * What somebody does who can write to a data folder and has not its key: takes lines out of the audit log, makes the chain
 * again, and signs it with a key of his own. The thumbprint of that key is not that of the folder.
 */
export async function forgeAudit(
  dataFolder: string,
  isTaken: (line: Record<string, unknown>) => boolean,
): Promise<void> {
  const file = join(dataFolder, 'audit.jsonl');
  let head = { sequence: 0, sha256: '0'.repeat(64) };
  const lines = (await readFile(file, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const kept = lines.filter((line) => !isTaken(line));
  if (kept.length === lines.length) throw new Error('there is no such line');
  const written = kept.map((line) => {
    const { seq: _seq, prev: _prev, hash: _hash, who, ...rest } = line;
    const body = JSON.stringify({
      seq: head.sequence + 1,
      ...rest,
      ...(who && { who: 'someone' }),
      prev: head.sha256,
    });
    head = { sequence: head.sequence + 1, sha256: sha256Of(body) };
    return `${body.slice(0, -1)},"hash":"${head.sha256}"}\n`;
  });
  await writeFile(file, written.join(''));
  const { privateKey, publicKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519' });
  const { kty, crv, x } = await exportJWK(publicKey);
  const payload = JSON.stringify({ ...head, time: new Date().toISOString() });
  const signed = await new CompactSign(Buffer.from(payload))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'tomaat-audit+jws', jwk: { kty, crv, x } })
    .sign(privateKey);
  await writeFile(join(dataFolder, 'audit.head'), `${signed}\n`);
}
