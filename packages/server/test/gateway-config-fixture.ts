import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FileFault, TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, expect } from 'vitest';
import { parseGatewayConfig } from '../src/gateway/parse-config.ts';

/* A file of rules without faults, with the files that it names, for tests that put one in. */

export const folder = mkdtempSync(join(tmpdir(), 'tomaat-gateway-config-'));
export const file = join(folder, 'gateway.yaml');
const secretFile = (name: string, text: string, mode = 0o600) => {
  writeFileSync(join(folder, name), text);
  chmodSync(join(folder, name), mode);
};

/** Makes the files for the tests of one file. */
export function useConfigFiles(): void {
  beforeAll(() => {
    mkdirSync(folder, { recursive: true });
    secretFile('pacs.password', 'pässword\n');
    secretFile('archive.token', 'abc.def\r\n');
    secretFile('hook.secret', '0123456789abcdef\n');
    secretFile('lungs.key', 'tmt_key\n');
    secretFile('open.secret', '0123456789abcdef\n', 0o640);
    secretFile('short.secret', '0123\n');
    secretFile('empty.secret', '\n');
    secretFile('two-lines.secret', '0123456789abcdef\nx\n');
    secretFile('spaces.secret', ' 0123456789abcdef\n');
    secretFile('ca.pem', '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n', 0o644);
    mkdirSync(join(folder, 'inbox', 'done'), { recursive: true });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
}

export const whole = `schemaVersion: 1
sources:
  pacs: { type: orthanc, url: http://127.0.0.1:8042/dicom-web/, user: gateway, passwordFile: pacs.password, hookSecretFile: hook.secret, poll: 5m, since: 7d }
  archive: { type: dicomweb, url: https://archive.example/rs, tokenFile: archive.token, caFile: ca.pem, quiet: 0s }
  inbox: { type: folder, path: inbox }
services:
  lungs: { url: https://server.example:9443/, service: ct-lung, apiKeyFile: lungs.key, caFile: ca.pem }
destinations:
  back: { type: source, source: pacs }
  other: { type: dicomweb, url: https://other.example/rs, tokenFile: archive.token }
  kept: { type: folder, path: results }
rules:
  - id: ct-chest
    when: { sources: [pacs, archive], modality: ct, bodyPart: [chest, thorax], description: ['*thorax*', '胸部*'], slices: { min: 20 }, sliceSpacingMm: { max: 5 }, not: { description: ['*topogram*'] } }
    service: lungs
    destinations: [back, other]
    parameters: { threshold: 0.5 }
    results: [seg.dcm, sr.dcm]
    urgency: 2
  - id: inbox
    when: { sources: inbox }
    service: lungs
    destinations: [kept]
    identity: keep
limits: { concurrency: 4, keep: 30d }
`;

/** The faults of the file, one line each. */
export function faultsOf(text: string): string[] {
  try {
    parseGatewayConfig(text, file);
  } catch (error) {
    expect(error).toBeInstanceOf(TomaatError);
    expect((error as TomaatError).code).toBe('BAD_REQUEST');
    const faults = (error as TomaatError).detail?.faults as FileFault[];
    return faults.map(({ line, path, message }) =>
      `${line} ${path}: ${message}`.replaceAll(folder, 'FOLDER'),
    );
  }
  return [];
}

/** The file with a part of it replaced, which must be there. */
export function changed(part: string, other: string): string {
  expect(whole.split(part).length, part).toBeGreaterThan(1);
  return whole.replace(part, other);
}
