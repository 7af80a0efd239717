import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { defaultAuthorities } from './authorities.ts';

afterEach(() => vi.unstubAllEnvs());

/** Runs as on a version of Node that does not have the function. */
function withoutNewFunction(work: () => void): void {
  const node = tls as { getCACertificates?: unknown };
  const { getCACertificates } = node;
  if (!getCACertificates) {
    work();
    return;
  }
  try {
    node.getCACertificates = undefined;
    syncBuiltinESMExports();
    work();
  } finally {
    node.getCACertificates = getCACertificates;
    syncBuiltinESMExports();
  }
}

describe('defaultAuthorities()', () => {
  it('has the authorities that Node comes with', () => {
    const authorities = defaultAuthorities();
    expect(authorities.length).toBeGreaterThanOrEqual(tls.rootCertificates.length);
    expect(authorities).toContain(tls.rootCertificates[0]);
  });

  it('adds those of NODE_EXTRA_CA_CERTS where Node cannot tell them', () => {
    const folder = mkdtempSync(join(tmpdir(), 'tomaat-authorities-'));
    try {
      const file = join(folder, 'extra.pem');
      writeFileSync(file, 'the extra ones: größe');
      withoutNewFunction(() => {
        vi.stubEnv('NODE_EXTRA_CA_CERTS', undefined);
        expect(defaultAuthorities()).toEqual(tls.rootCertificates);
        vi.stubEnv('NODE_EXTRA_CA_CERTS', file);
        expect(defaultAuthorities()).toEqual([...tls.rootCertificates, 'the extra ones: größe']);
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
