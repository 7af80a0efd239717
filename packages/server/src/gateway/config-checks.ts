import type { DataFault, DicomFormat } from '@tomaat/core';
import { isLoopback } from '../addresses.ts';
import {
  aName,
  type DestinationEntry,
  type GatewayFile,
  namePattern,
  type RuleEntry,
  type ServiceEntry,
  type SourceEntry,
} from './config-schema.ts';
import { derivedModalities } from './match-rules.ts';

/*
 * What does not fit together in a file of rules, and what is probably a mistake. A part that has faults of its own is missing here, or
 * undefined in its list.
 */

export interface SoundParts {
  readonly sources: Readonly<Record<string, SourceEntry>>;
  readonly services: Readonly<Record<string, ServiceEntry>>;
  readonly destinations: Readonly<Record<string, DestinationEntry>>;
  readonly rules: readonly (RuleEntry | undefined)[];
  readonly limits?: GatewayFile['limits'];
  /** Names that are in the file, of sound parts and others. */
  readonly names: Readonly<Record<'sources' | 'services' | 'destinations', readonly string[]>>;
}

export function configFaults(parts: SoundParts): DataFault[] {
  return [
    ...Object.entries(parts.names).flatMap(([kind, names]) =>
      names.flatMap((name) => (namePattern.test(name) ? [] : [{ path: [kind, name], message: aName }])),
    ),
    ...Object.entries(parts.sources).flatMap(([name, source]) =>
      source.type === 'folder' ? [] : addressFaults(['sources', name], source),
    ),
    ...Object.entries(parts.sources).flatMap(([name, source]) => searchFaults(['sources', name], source)),
    ...Object.entries(parts.services).flatMap(([name, service]) =>
      serviceFaults(['services', name], service),
    ),
    ...Object.entries(parts.destinations).flatMap(([name, destination]) =>
      destinationFaults(['destinations', name], destination, parts),
    ),
    ...parts.rules.flatMap((rule, i) => (rule ? ruleFaults(['rules', i], rule, parts) : [])),
    ...duplicateIds(parts.rules),
    ...(parts.limits ? limitFaults(parts.limits) : []),
  ];
}

type Path = readonly PropertyKey[];

/** Whether what is sent to the address can be read on the way. */
function isOpen(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'http:' && !isLoopback(hostname);
}

interface Login {
  readonly url: string;
  readonly user?: string;
  readonly passwordFile?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
}

function addressFaults(path: Path, { url, user, passwordFile, tokenFile, caFile }: Login): DataFault[] {
  const faults: DataFault[] = [];
  const add = (key: string, message: string) => faults.push({ path: [...path, key], message });
  if (user !== undefined && passwordFile === undefined)
    add('user', 'has no effect without passwordFile. Give passwordFile too');
  if (passwordFile !== undefined && user === undefined)
    add('passwordFile', 'has no effect without user. Give user too');
  if (user?.includes(':'))
    add('user', 'has a “:”, which HTTP allows in no user. Ask the archive’s operator for another one');
  if (tokenFile !== undefined && (user ?? passwordFile) !== undefined)
    add('tokenFile', 'cannot be given with user and passwordFile. Leave out one of them');
  const secret = tokenFile === undefined ? (passwordFile === undefined ? undefined : 'password') : 'token';
  if (secret && isOpen(url)) add('url', `would get the ${secret} unencrypted. Use https`);
  if (caFile !== undefined && url.startsWith('http:'))
    add('caFile', 'has no effect with http. Leave it out, or use https');
  return faults;
}

function searchFaults(path: Path, source: SourceEntry): DataFault[] {
  if (source.type === 'folder' || source.since % 86_400_000 === 0) return [];
  return [
    { path: [...path, 'since'], message: 'must be whole days, such as 3d: studies have dates, not times' },
  ];
}

function serviceFaults(path: Path, { url, apiKeyFile, caFile, fingerprint }: ServiceEntry): DataFault[] {
  const faults: DataFault[] = [];
  const add = (key: string, message: string) => faults.push({ path: [...path, key], message });
  if (apiKeyFile !== undefined && isOpen(url)) add('url', 'would get the API key unencrypted. Use https');
  if (url.startsWith('http:')) {
    if (caFile !== undefined) add('caFile', 'has no effect with http. Leave it out, or use https');
    if (fingerprint !== undefined) add('fingerprint', 'has no effect with http. Leave it out, or use https');
  }
  return faults;
}

function destinationFaults(path: Path, destination: DestinationEntry, parts: SoundParts): DataFault[] {
  if (destination.type === 'dicomweb') return addressFaults(path, destination);
  if (destination.type === 'folder') return [];
  const at = [...path, 'source'];
  if (!parts.names.sources.includes(destination.source))
    return [{ path: at, message: unknown(destination.source, 'source', parts.names.sources) }];
  return parts.sources[destination.source]?.type === 'folder'
    ? [
        {
          path: at,
          message:
            'is a folder, into which no results are put. Give a destination of type folder with another path',
        },
      ]
    : [];
}

const unknown = (name: string, what: string, available: readonly string[]) =>
  `${name} is not the name of a ${what}. Available: ${available.join(', ') || 'none'}`;

function ruleFaults(path: Path, rule: RuleEntry, parts: SoundParts): DataFault[] {
  const faults: DataFault[] = [];
  const add = (key: Path, message: string) => faults.push({ path: [...path, ...key], message });
  const { when } = rule;
  const { names } = parts;
  if (!names.services.includes(rule.service))
    add(['service'], unknown(rule.service, 'service', names.services));
  rule.destinations.forEach((name, i) => {
    if (!names.destinations.includes(name))
      add(['destinations', i], unknown(name, 'destination', names.destinations));
    if (rule.destinations.indexOf(name) < i)
      add(['destinations', i], `${name} is there twice. Leave one out`);
  });
  for (const [part, at] of [
    [when, ['when']],
    [when.not, ['when', 'not']],
  ] as const)
    part?.sources?.forEach((name, i) => {
      if (!names.sources.includes(name)) add([...at, 'sources', i], unknown(name, 'source', names.sources));
    });
  for (const key of ['slices', 'sliceSpacingMm'] as const) {
    const { min = 0, max = Infinity } = when[key] ?? {};
    if (min > max) add(['when', key], `can never match: min ${min} is more than max ${max}. Exchange them`);
  }
  for (const key of [
    'sources',
    'modality',
    'bodyPart',
    'description',
    'studyDescription',
    'callingAet',
  ] as const) {
    const excluded = when.not?.[key] as readonly string[] | undefined;
    const wanted = when[key] as readonly string[] | undefined;
    if (wanted?.every((value) => excluded?.some((other) => other === value || other === '*')))
      add(
        ['when', 'not', key],
        `excludes all that ${key} asks for, so the rule can never match. Remove one of them`,
      );
  }
  const from = when.sources ?? names.sources;
  const knowsAet = from.some((name) => (parts.sources[name]?.type ?? 'orthanc') === 'orthanc');
  if ((when.callingAet ?? when.not?.callingAet) && !knowsAet)
    add(
      ['when'],
      'can never match: only sources of type orthanc tell who sent a series. Leave callingAet out',
    );
  const own = ownModality(rule);
  if (own)
    add(
      ['when', 'modality'],
      `names ${own}, which is what the rule itself stores, so that each result would be processed again. Leave it out`,
    );
  const service = parts.services[rule.service];
  if (rule.identity === 'keep' && service && isOpen(service.url))
    add(
      ['identity'],
      'would send the patient’s identity unencrypted. Use https for the service, or remove the identity',
    );
  return faults;
}

const modalityOf: Readonly<Record<DicomFormat, string>> = {
  'seg.dcm': 'SEG',
  'labelmap.dcm': 'SEG',
  'rtstruct.dcm': 'RTSTRUCT',
  'key.dcm': 'OT',
  'sr.dcm': 'SR',
};

/** A modality that a rule takes and makes. */
const ownModality = ({ when, results }: RuleEntry): string | undefined =>
  when.modality?.find(
    (one) => derivedModalities.includes(one) && results.some((format) => modalityOf[format] === one),
  );

function duplicateIds(rules: SoundParts['rules']): DataFault[] {
  const ids = rules.map((rule) => rule?.id);
  return ids.flatMap((id, i) =>
    id !== undefined && ids.indexOf(id) < i
      ? [
          {
            path: ['rules', i, 'id'],
            message: `${id} is the id of another rule. Give each rule an id of its own`,
          },
        ]
      : [],
  );
}

function limitFaults({ firstPause, longestPause, giveUp }: GatewayFile['limits']): DataFault[] {
  const faults: DataFault[] = [];
  const add = (key: string, message: string) => faults.push({ path: ['limits', key], message });
  if (firstPause > longestPause) add('firstPause', 'is longer than longestPause. Shorten it');
  if (longestPause > giveUp)
    add('longestPause', 'is longer than giveUp, so that nothing would be tried again. Shorten it');
  return faults;
}

/** What works, but is probably not what was meant. */
export function configWarnings(parts: SoundParts): DataFault[] {
  const rules = parts.rules.filter((rule) => rule !== undefined);
  const used = {
    sources: rules.some(({ when }) => when.sources === undefined)
      ? undefined
      : new Set(rules.flatMap(({ when }) => when.sources ?? [])),
    services: new Set(rules.map(({ service }) => service)),
    destinations: new Set(rules.flatMap(({ destinations }) => destinations)),
  };
  const unused = (['sources', 'services', 'destinations'] as const).flatMap((kind) =>
    parts.names[kind]
      .filter((name) => used[kind] && !used[kind].has(name))
      .map((name) => ({ path: [kind, name], message: 'is used by no rule' })),
  );
  return [
    ...unused,
    ...sameArchives(parts.sources),
    ...Object.entries(parts.services)
      .filter(([, { url }]) => isOpen(url))
      .map(([name]) => ({
        path: ['services', name, 'url'],
        message: 'images are sent unencrypted. Use https',
      })),
    ...parts.rules.flatMap((rule, i) => (rule ? ruleWarnings(['rules', i], rule) : [])),
  ];
}

function sameArchives(sources: SoundParts['sources']): DataFault[] {
  const known = new Map<string, string>();
  return Object.entries(sources).flatMap(([name, source]) => {
    const place = source.type === 'folder' ? source.path : source.url.replace(/\/$/, '');
    const other = known.get(place);
    known.set(place, name);
    return other === undefined
      ? []
      : [
          {
            path: ['sources', name],
            message: `has the same series as ${other}: a rule for both may process them twice`,
          },
        ];
  });
}

/** Defined terms of Modality (PS3.3 C.7.3.1.1.1) that have images, and common ones that were retired. */
const imageModalities = new Set(
  'ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LS MG MR M3D NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC'.split(
    ' ',
  ),
);
const meant: Readonly<Record<string, string>> = {
  MRI: 'MR',
  PET: 'PT',
  XR: 'DX',
  SPECT: 'NM',
  SC: 'OT',
  CBCT: 'CT',
};

function ruleWarnings(path: Path, { when }: RuleEntry): DataFault[] {
  const modalities = (when.modality ?? []).flatMap((code, i) => {
    if (imageModalities.has(code)) return [];
    const remedy = Object.hasOwn(meant, code) ? ` Did you mean ${meant[code]}?` : '';
    return [
      { path: [...path, 'when', 'modality', i], message: `${code} is not a modality of DICOM.${remedy}` },
    ];
  });
  const texts = (['bodyPart', 'description', 'studyDescription', 'callingAet'] as const).flatMap((key) =>
    (when[key] ?? []).flatMap((text, i) =>
      looksLikeExpression(text)
        ? [
            {
              path: [...path, 'when', key, i],
              message:
                'looks like a regular expression, and is compared as text. Only * and ? stand for others',
            },
          ]
        : [],
    ),
  );
  return [...modalities, ...texts];
}

const looksLikeExpression = (text: string): boolean =>
  text.startsWith('^') || text.endsWith('$') || text.includes('.*') || text.includes('.+');
