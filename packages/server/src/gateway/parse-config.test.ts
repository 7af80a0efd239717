import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FileFault, TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseGatewayConfig } from './parse-config.ts';

const folder = mkdtempSync(join(tmpdir(), 'tomaat-gateway-config-'));
const file = join(folder, 'gateway.yaml');
const secretFile = (name: string, text: string, mode = 0o600) => {
  writeFileSync(join(folder, name), text);
  chmodSync(join(folder, name), mode);
};

beforeAll(() => {
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

const whole = `schemaVersion: 1
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
function faultsOf(text: string): string[] {
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
function changed(part: string, other: string): string {
  expect(whole.split(part).length, part).toBeGreaterThan(1);
  return whole.replace(part, other);
}

describe('parseGatewayConfig()', () => {
  it('gives durations in ms, absolute paths, secrets, and defaults', () => {
    const { config, warnings } = parseGatewayConfig(whole, file);
    expect(warnings).toEqual([]);
    expect(config).toEqual({
      sources: {
        pacs: {
          type: 'orthanc',
          url: 'http://127.0.0.1:8042/dicom-web',
          authorization: `Basic ${Buffer.from('gateway:pässword').toString('base64')}`,
          caFile: undefined,
          hookSecret: '0123456789abcdef',
          pollMs: 300_000,
          sinceDays: 7,
          quietMs: 60_000,
        },
        archive: {
          type: 'dicomweb',
          url: 'https://archive.example/rs',
          authorization: 'Bearer abc.def',
          caFile: join(folder, 'ca.pem'),
          pollMs: 60_000,
          sinceDays: 3,
          quietMs: 0,
        },
        inbox: { type: 'folder', path: join(folder, 'inbox'), pollMs: 10_000, quietMs: 30_000 },
      },
      services: {
        lungs: {
          url: 'https://server.example:9443',
          service: 'ct-lung',
          apiKey: 'tmt_key',
          caFile: join(folder, 'ca.pem'),
          fingerprint: undefined,
        },
      },
      destinations: {
        back: {
          type: 'dicomweb',
          url: 'http://127.0.0.1:8042/dicom-web',
          authorization: `Basic ${Buffer.from('gateway:pässword').toString('base64')}`,
          caFile: undefined,
        },
        other: {
          type: 'dicomweb',
          url: 'https://other.example/rs',
          authorization: 'Bearer abc.def',
          caFile: undefined,
        },
        kept: { type: 'folder', path: join(folder, 'results') },
      },
      rules: [
        {
          id: 'ct-chest',
          when: {
            sources: ['pacs', 'archive'],
            modality: ['CT'],
            bodyPart: ['chest', 'thorax'],
            description: ['*thorax*', '胸部*'],
            slices: { min: 20 },
            sliceSpacingMm: { max: 5 },
            not: { description: ['*topogram*'] },
          },
          service: 'lungs',
          destinations: ['back', 'other'],
          parameters: { threshold: 0.5 },
          results: ['seg.dcm', 'sr.dcm'],
          keepIdentity: false,
          keepPatientCharacteristics: false,
          urgency: 2,
        },
        {
          id: 'inbox',
          when: { sources: ['inbox'] },
          service: 'lungs',
          destinations: ['kept'],
          parameters: {},
          results: ['seg.dcm'],
          keepIdentity: true,
          keepPatientCharacteristics: false,
          urgency: 3,
        },
      ],
      limits: {
        concurrency: 4,
        firstPauseMs: 10_000,
        longestPauseMs: 600_000,
        giveUpMs: 3 * 86_400_000,
        keepMs: 30 * 86_400_000,
        maxSeriesBytes: 4 * 1024 ** 3,
      },
    });
  });

  it.each<[string, string, string, string]>([
    // What is not there, or unknown.
    [
      'an unknown key',
      'limits: {',
      'limits: { concurency: 2,',
      '25 limits: has the unknown key concurency. Did you mean concurrency?',
    ],
    [
      'an unknown key of a source',
      'poll: 5m',
      'frequency: 5m',
      '3 sources.pacs: has the unknown key frequency. Available: type, url, user, passwordFile, tokenFile, caFile, hookSecretFile, poll, since, quiet',
    ],
    [
      'an unknown part',
      'limits:',
      'extras:',
      '25 (whole file): has the unknown key extras. Available: schemaVersion, sources, services, destinations, rules, limits',
    ],
    ['no version', 'schemaVersion: 1\n', '', 'undefined schemaVersion: is missing: it must be 1'],
    ['another version', 'schemaVersion: 1', 'schemaVersion: 2', '1 schemaVersion: must be 1'],
    [
      'a type that is none',
      'type: folder, path: inbox',
      'type: dimse, path: inbox',
      "5 sources.inbox.type: must be one of 'dicomweb' | 'orthanc' | 'folder'",
    ],
    ['a missing key', 'service: ct-lung, ', '', '7 services.lungs.service: is missing: it must be text'],
    [
      'a missing secret of the hook',
      ', hookSecretFile: hook.secret',
      '',
      '3 sources.pacs.hookSecretFile: is missing: it must be text',
    ],
    ['a map for a list', 'rules:\n  - id: ct-chest', 'rules:\n  ct-chest:\n   id: ct-chest', '(YAML)'],
    [
      'a key twice',
      'limits:',
      'sources: {}\nlimits:',
      '25 (YAML): Map keys must be unique: sources is there twice',
    ],
    [
      'a name with a slash',
      '  inbox: { type',
      '  in/box: { type',
      '5 sources.in/box: must be a name of letters, digits, “-” and “_”, at most 60 characters',
    ],
    // Names that nothing defines.
    [
      'a service of a rule',
      'service: lungs\n    destinations: [kept]',
      'service: liver\n    destinations: [kept]',
      '22 rules.1.service: liver is not the name of a service. Available: lungs',
    ],
    [
      'a destination of a rule',
      '[back, other]',
      '[back, othr]',
      '16 rules.0.destinations.1: othr is not the name of a destination. Available: back, other, kept',
    ],
    [
      'a destination twice',
      '[back, other]',
      '[other, other]',
      '16 rules.0.destinations.1: other is there twice. Leave one out',
    ],
    [
      'a source of a rule',
      '[pacs, archive]',
      '[pacs, archiv]',
      '14 rules.0.when.sources.1: archiv is not the name of a source. Available: pacs, archive, inbox',
    ],
    [
      'a source of a destination',
      'source: pacs',
      'source: pac',
      '9 destinations.back.source: pac is not the name of a source. Available: pacs, archive, inbox',
    ],
    [
      'a folder as a destination’s source',
      'source: pacs',
      'source: inbox',
      '9 destinations.back.source: is a folder, into which no results are put. Give a destination of type folder with another path',
    ],
    [
      'two rules of one id',
      'id: inbox',
      'id: ct-chest',
      '20 rules.1.id: ct-chest is the id of another rule. Give each rule an id of its own',
    ],
    // Secrets.
    [
      'a password in the file',
      'passwordFile: pacs.password',
      'password: geheim',
      '3 sources.pacs: has a secret in password. Write it to a file that only its owner can read, and name that in passwordFile',
    ],
    [
      'an API key in the file',
      'apiKeyFile: lungs.key',
      'apiKey: tmt_secret',
      '7 services.lungs: has a secret in apiKey. Write it to a file that only its owner can read, and name that in apiKeyFile',
    ],
    [
      'the hook’s secret in the file',
      'hookSecretFile: hook.secret',
      'hookSecret: geheim',
      '3 sources.pacs: has a secret in hookSecret. Write it to a file that only its owner can read, and name that in hookSecretFile',
    ],
    [
      'a login in an address',
      'https://other.example/rs',
      'https://a:geheim@other.example/rs',
      '10 destinations.other.url: has a login in it. Give user and passwordFile instead',
    ],
    [
      'a file that is not there',
      'passwordFile: pacs.password',
      'passwordFile: no.password',
      '3 sources.pacs.passwordFile: FOLDER/no.password does not exist. Create it, or correct the path',
    ],
    [
      'a file that others can read',
      'hookSecretFile: hook.secret',
      'hookSecretFile: open.secret',
      '3 sources.pacs.hookSecretFile: FOLDER/open.secret can be read by others than its owner. Run: chmod 600 FOLDER/open.secret',
    ],
    [
      'an empty file',
      'hookSecretFile: hook.secret',
      'hookSecretFile: empty.secret',
      '3 sources.pacs.hookSecretFile: FOLDER/empty.secret is empty. Write the secret into it',
    ],
    [
      'a short secret',
      'hookSecretFile: hook.secret',
      'hookSecretFile: short.secret',
      '3 sources.pacs.hookSecretFile: the secret in FOLDER/short.secret has fewer than 16 characters. Make a longer one: openssl rand -hex 32',
    ],
    [
      'two lines',
      'apiKeyFile: lungs.key',
      'apiKeyFile: two-lines.secret',
      '7 services.lungs.apiKeyFile: FOLDER/two-lines.secret has several lines. Leave only the secret in it',
    ],
    [
      'spaces',
      'apiKeyFile: lungs.key',
      'apiKeyFile: spaces.secret',
      '7 services.lungs.apiKeyFile: FOLDER/spaces.secret has spaces around the secret, or control characters in it. Remove them',
    ],
    [
      'a folder for a file',
      'apiKeyFile: lungs.key',
      'apiKeyFile: inbox',
      '7 services.lungs.apiKeyFile: FOLDER/inbox is not a file',
    ],
    [
      'no certificate',
      'caFile: ca.pem, quiet',
      'caFile: hook.secret, quiet',
      '4 sources.archive.caFile: FOLDER/hook.secret has no certificate in it. Give a PEM file',
    ],
    [
      'a password without user',
      'user: gateway, ',
      '',
      '3 sources.pacs.passwordFile: has no effect without user. Give user too',
    ],
    [
      'a user without password',
      'passwordFile: pacs.password, ',
      '',
      '3 sources.pacs.user: has no effect without passwordFile. Give passwordFile too',
    ],
    [
      'a user and a token',
      'user: gateway',
      'tokenFile: archive.token, user: gateway',
      '3 sources.pacs.tokenFile: cannot be given with user and passwordFile. Leave out one of them',
    ],
    [
      'a user with a colon',
      'user: gateway',
      'user: "a:b"',
      '3 sources.pacs.user: has a “:”, which HTTP allows in no user. Ask the archive’s operator for another one',
    ],
    [
      'a password over http',
      'http://127.0.0.1:8042',
      'http://10.1.2.3:8042',
      '3 sources.pacs.url: would get the password unencrypted. Use https',
    ],
    [
      'a token over http',
      'https://other.example',
      'http://other.example',
      '10 destinations.other.url: would get the token unencrypted. Use https',
    ],
    // Addresses, times, numbers.
    [
      'another protocol',
      'https://other.example/rs',
      'ftp://other.example/rs',
      '10 destinations.other.url: must be an http or https address, such as https://pacs.example/dicom-web',
    ],
    [
      'no address',
      'https://other.example/rs',
      'other.example',
      '10 destinations.other.url: must be an http or https address, such as https://pacs.example/dicom-web',
    ],
    [
      'a query',
      'https://other.example/rs',
      'https://other.example/rs?x=1',
      '10 destinations.other.url: must be an address without ? and #',
    ],
    ['a time without unit', 'poll: 5m', 'poll: 5', '3 sources.pacs.poll: must be a time with its unit'],
    [
      'a time in another unit',
      'poll: 5m',
      'poll: 5 minutes',
      '3 sources.pacs.poll: must be a time with its unit, from 1s to 1d, such as 30s, 5m, 12h or 3d',
    ],
    [
      'a time out of range',
      'poll: 5m',
      'poll: 0s',
      '3 sources.pacs.poll: must be a time with its unit, from 1s to 1d, such as 30s, 5m, 12h or 3d',
    ],
    [
      'a half day',
      'since: 7d',
      'since: 36h',
      '3 sources.pacs.since: must be whole days, such as 3d: studies have dates, not times',
    ],
    ['a number out of range', 'concurrency: 4', 'concurrency: 0', '25 limits.concurrency: must be 1 or more'],
    ['no whole number', 'urgency: 2', 'urgency: 2.5', '19 rules.0.urgency: must be a whole number'],
    ['an urgency', 'urgency: 2', 'urgency: 8', '19 rules.0.urgency: must be from 0 (first) to 7'],
    [
      'pauses',
      'concurrency: 4',
      'firstPause: 20m',
      '25 limits.firstPause: is longer than longestPause. Shorten it',
    ],
    [
      'giving up',
      'concurrency: 4',
      'giveUp: 5m',
      '25 limits.longestPause: is longer than giveUp, so that nothing would be tried again. Shorten it',
    ],
    [
      'a fingerprint',
      'apiKeyFile: lungs.key',
      'fingerprint: AB:CD',
      '7 services.lungs.fingerprint: “AB:CD” is not a SHA-256 fingerprint.',
    ],
    // Rules.
    [
      'a format of volumes',
      'sr.dcm]',
      'nii.gz]',
      '18 rules.0.results.1: must be one of seg.dcm, labelmap.dcm, rtstruct.dcm, key.dcm, sr.dcm',
    ],
    ['an archive as a result', 'sr.dcm]', 'zip]', '18 rules.0.results.1: must be one of'],
    [
      'no results',
      '[seg.dcm, sr.dcm]',
      '[]',
      '18 rules.0.results: is an empty list, so nothing would be stored. Leave the key out, or give a format',
    ],
    [
      'an empty list',
      'bodyPart: [chest, thorax]',
      'bodyPart: []',
      '14 rules.0.when.bodyPart: is an empty list, so the rule can never match. Leave the key out, or give a value',
    ],
    [
      'a range the wrong way round',
      'slices: { min: 20 }',
      'slices: { min: 20, max: 10 }',
      '14 rules.0.when.slices: can never match: min 20 is more than max 10. Exchange them',
    ],
    [
      'no slices',
      'slices: { min: 20 }',
      'slices: { min: 0 }',
      '14 rules.0.when.slices.min: must be 1 or more',
    ],
    ['spacing', '{ max: 5 }', '{ max: 0 }', '14 rules.0.when.sliceSpacingMm.max: must be more than 0 mm'],
    [
      'modality in words',
      'modality: ct',
      'modality: computed tomography',
      '14 rules.0.when.modality: must be a code of DICOM, such as CT, MR or PT',
    ],
    [
      'all excluded',
      "not: { description: ['*topogram*'] }",
      'not: { modality: [CT, MR] }',
      '14 rules.0.when.not.modality: excludes all that modality asks for, so the rule can never match. Remove one of them',
    ],
    [
      'AET of a source that knows none',
      'sources: [pacs, archive], modality: ct',
      'sources: [archive], callingAet: CT1',
      '14 rules.0.when: can never match: only sources of type orthanc tell who sent a series. Leave callingAet out',
    ],
    [
      'AET of 17 characters',
      'modality: ct',
      'callingAet: ABCDEFGHIJKLMNOPQ',
      '14 rules.0.when.callingAet: can never match: the title of an application entity has at most 16 characters',
    ],
    [
      'a number for a text',
      "'胸部*'",
      '5',
      '14 rules.0.when.description.1: must be text. Write numbers in quotes',
    ],
    [
      'an empty text',
      "'胸部*'",
      "' '",
      '14 rules.0.when.description.1: must not be empty. “*” stands for any text',
    ],
    [
      'a regular expression',
      "'胸部*'",
      "'\\d+'",
      '14 rules.0.when.description.1: has a \\ that does not stand before * or ?. Leave it out',
    ],
    [
      'a pattern of 201 characters',
      "'胸部*'",
      `'${'*a'.repeat(101)}'`,
      '14 rules.0.when.description.1: must have at most 200 characters',
    ],
    [
      'its own results',
      'modality: ct',
      'modality: [CT, SEG]',
      '14 rules.0.when.modality: names SEG, which is what the rule itself stores, so that each result would be processed again. Leave it out',
    ],
    [
      'identity over http',
      'https://server.example:9443/, service: ct-lung, apiKeyFile: lungs.key, caFile: ca.pem',
      'http://10.1.2.3:9000, service: ct-lung',
      '24 rules.1.identity: would send the patient’s identity unencrypted.',
    ],
    ['a word for a truth', 'identity: keep', 'identity: yes', '24 rules.1.identity: must be remove or keep'],
    [
      'a folder that is not there',
      'path: inbox',
      'path: nowhere',
      '5 sources.inbox.path: FOLDER/nowhere does not exist, or cannot be read. Create it, or correct the path',
    ],
    [
      'results in a folder that is read',
      'path: results',
      'path: inbox/done',
      '11 destinations.kept.path: is in FOLDER/inbox, from which series are read. Give another folder',
    ],
  ])('names %s with its line, its path and what to do', (_, part, other, fault) => {
    const faults = faultsOf(changed(part, other));
    expect(faults).toContainEqual(expect.stringContaining(fault));
  });

  it('lists faults of every kind at once, in the order of the file', () => {
    const text = whole
      .replace('poll: 5m', 'poll: soon')
      .replace('passwordFile: pacs.password', 'passwordFile: no.password')
      .replace('https://other.example/rs', 'other')
      .replace('[back, other]', '[bak]')
      .replace('service: lungs\n    destinations: [kept]', 'service: liver\n    destinations: [kept]')
      .replace('concurrency: 4', 'concurrency: 4.5, more: 1, evenMore: 2');
    const faults = faultsOf(text);
    expect(faults.map((fault) => fault.split(': ')[0])).toEqual([
      '3 sources.pacs.poll',
      '10 destinations.other.url',
      '16 rules.0.destinations.0',
      '22 rules.1.service',
      '25 limits.concurrency',
      '25 limits',
      '25 limits',
    ]);
  });

  it('shows no secret in any message', () => {
    const faults = faultsOf(
      whole
        .replace('user: gateway', 'tokenFile: two-lines.secret')
        .replace('hookSecretFile: hook.secret', 'hookSecretFile: spaces.secret, hookSecret: geheim')
        .replace('apiKeyFile: lungs.key', 'apiKey: geheim'),
    );
    expect(faults.length).toBeGreaterThan(1);
    expect(faults.join()).not.toMatch(/geheim|0123456789/);
  });

  it.each([
    ['nothing', '', /must be a map with the keys schemaVersion/],
    ['a text', 'hello', /\(whole file\)/],
    ['a list', '- a', /\(whole file\)/],
    ['lists without end', '['.repeat(50_000), /too many levels/],
    [
      'aliases that expand',
      `a: &a [x, x]\n${Array.from({ length: 30 }, (_, i) => `b${i}: &b${i} [*${i ? `b${i - 1}` : 'a'}, *${i ? `b${i - 1}` : 'a'}]`).join('\n')}`,
      /alias/i,
    ],
    ['a megabyte', `# ${'x'.repeat(1_000_000)}`, /more than 1000000 characters/],
    [
      '100,000 rules',
      `${whole.split('rules:')[0]}rules: [${'{},'.repeat(100_000)}]`,
      /more than 1000 rules|is missing/,
    ],
    ['another file’s names', '__proto__: { a: 1 }\nconstructor: 2', /unknown key/],
  ])('refuses %s in bounded time', (_, text, message) => {
    const started = performance.now();
    expect(faultsOf(text).join('\n')).toMatch(message);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('warns of what is not used, and of what is probably not meant', () => {
    const text = whole
      .replace('[back, other]', '[kept]')
      .replace('sources: [pacs, archive], modality: ct', 'sources: [pacs], modality: [MRI]')
      .replace('https://archive.example/rs', 'https://other.example/x')
      .replace(
        'https://server.example:9443/, service: ct-lung, apiKeyFile: lungs.key, caFile: ca.pem',
        'http://10.1.2.3:9000, service: ct-lung',
      )
      .replace('identity: keep', 'identity: remove');
    const { warnings } = parseGatewayConfig(text, file);
    expect(warnings.map(({ line, path, message }) => `${line} ${path}: ${message}`)).toEqual([
      '4 sources.archive: is used by no rule',
      '7 services.lungs.url: images are sent unencrypted. Use https',
      '9 destinations.back: is used by no rule',
      '10 destinations.other: is used by no rule',
      '14 rules.0.when.modality.0: MRI is not a modality of DICOM. Did you mean MR?',
    ]);
  });

  it('warns of two sources that are the same archive', () => {
    const text = changed('https://archive.example/rs', 'http://127.0.0.1:8042/dicom-web');
    const { warnings } = parseGatewayConfig(
      text.replace('tokenFile: archive.token, caFile: ca.pem, quiet', 'quiet'),
      file,
    );
    expect(warnings.map(({ message }) => message)).toEqual([
      'has the same series as pacs: a rule for both may process them twice',
    ]);
  });
});
