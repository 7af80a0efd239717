import { describe, expect, it } from 'vitest';
import { changed, faultsOf, useConfigFiles } from '../../test/gateway-config-fixture.ts';

useConfigFiles();

describe('a fault of a file of rules', () => {
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
  ])('%s: named with line, path and what to do', (_, part, other, fault) => {
    const faults = faultsOf(changed(part, other));
    expect(faults).toContainEqual(expect.stringContaining(fault));
  });
});

it('finds what does not fit in entries that have other faults, too', () => {
  const text = `schemaVersion: 1
sources:
  pacs: { type: dicomweb, url: http://archive.example/rs, tokenFile: archive.token, poll: soon, since: 30h }
  inbox: { type: folder, path: nowhere, quit: 0s }
services:
  lungs: { url: https://server.example, servce: ct-lung, apiKeyFile: none.key }
destinations:
  back: { type: source, source: pcas, colour: red }
rules:
  - { id: one, when: { modality: 7, slices: { min: 9, max: 3 }, sources: pasc }, service: liver, destinations: [bakc], urgency: 9 }
  - { id: one, service: lungs, destinations: back }
limits: { concurrency: 0, firstPause: 2h, longestPause: 1h }
`;
  const found = faultsOf(text);
  for (const fault of [
    /^3 sources\.pacs\.poll: must be a time/,
    /^3 sources\.pacs\.since: must be whole days/,
    /^3 sources\.pacs\.url: would get the token unencrypted/,
    /^4 sources\.inbox: has the unknown key quit/,
    /^4 sources\.inbox\.path: .*nowhere/,
    /^6 services\.lungs: has the unknown key servce/,
    /^6 services\.lungs\.service: is missing/,
    /^6 services\.lungs\.apiKeyFile: .*none\.key/,
    /^8 destinations\.back: has the unknown key colour/,
    /^8 destinations\.back\.source: pcas is not the name of a source/,
    /^10 rules\.0\.when\.modality: must be text/,
    /^10 rules\.0\.when\.slices: can never match/,
    /^10 rules\.0\.when\.sources\.0: pasc is not the name of a source/,
    /^10 rules\.0\.service: liver is not the name of a service/,
    /^10 rules\.0\.destinations\.0: bakc is not the name of a destination/,
    /^10 rules\.0\.urgency: must be from 0/,
    /^11 rules\.1\.id: one is the id of another rule/,
    /^11 rules\.1\.destinations: must be a list/,
    /^12 limits\.concurrency: must be 1 or more/,
    /^12 limits\.firstPause: is longer than longestPause/,
  ])
    expect(found).toContainEqual(expect.stringMatching(fault));
  // And none of what stands in for a value with a fault.
  expect(found).toHaveLength(20);
});
