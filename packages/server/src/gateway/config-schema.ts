import { dicomFormats } from '@tomaat/core';
import { z } from 'zod';
import { parseDuration } from '../durations.ts';
import { compilePattern } from './patterns.ts';

/*
 * The keys of a gateway's file of rules. docs/reference/gateway.md is written from the descriptions here; what goes beyond one value is
 * checked by config-checks.ts, and parse-config.ts makes a GatewayConfig of it.
 */

/** Secrets that stand in the file itself, and the key that belongs there instead. */
const writtenSecrets: Readonly<Record<string, string>> = {
  password: 'passwordFile',
  token: 'tokenFile',
  authorization: 'tokenFile',
  headers: 'tokenFile',
  apiKey: 'apiKeyFile',
  key: 'apiKeyFile',
  hookSecret: 'hookSecretFile',
  secret: 'hookSecretFile',
};

/** An object without other keys. What is said of each unknown one is a line of the message. */
function keys<Shape extends z.ZodRawShape>(shape: Shape) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code === 'invalid_type')
        return issue.input === undefined
          ? `is missing. Give a map with the keys ${known.join(', ')}`
          : `must be a map with the keys ${known.join(', ')}`;
      if (issue.code !== 'unrecognized_keys') return undefined;
      const unknown = (issue as unknown as { keys: string[] }).keys;
      return unknown
        .map((name) => {
          const file = Object.hasOwn(writtenSecrets, name) ? writtenSecrets[name] : undefined;
          if (file && known.includes(file))
            return `has a secret in ${name}. Write it to a file that only its owner can read, and name that in ${file}`;
          const near = known.find(
            (other) => plain(other) === plain(name) || plain(other).startsWith(plain(name).slice(0, 4)),
          );
          const remedy = near ? `Did you mean ${near}?` : `Available: ${known.join(', ')}`;
          return `has the unknown key ${name.slice(0, 100)}. ${remedy}`;
        })
        .join('\n');
    },
  });
}
const plain = (name: string) => name.replace(/[-_]/g, '').toLowerCase();

/** What is wrong with a value of another kind; a key that is not there is called missing. */
const must = (be: string) => ({
  error: ({ input }: { readonly input?: unknown }) =>
    input === undefined ? `is missing: it must be ${be}` : `must be ${be}`,
});

const text = z
  .string(must('text'))
  .min(1, 'must not be empty. Leave the key out instead')
  .max(1000, 'is too long');

/** Names in the file: they stand in addresses, metrics and logs. */
export const aName = 'must be a name of letters, digits, “-” and “_”, at most 60 characters';
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$/;
const name = z.string(must(aName.slice(8))).refine((value) => namePattern.test(value), aName);

const address = z
  .url({
    protocol: /^https?$/,
    error: 'must be an http or https address, such as https://pacs.example/dicom-web',
  })
  .refine((url) => !/\/\/[^/]*@/.test(url), 'has a login in it. Give user and passwordFile instead')
  .refine((url) => !/[?#]/.test(url), 'must be an address without ? and #');

/** A span of time between two others. */
function duration(least: string, most: string) {
  const wrong = `must be a time with its unit, from ${least} to ${most}, such as 30s, 5m, 12h or 3d`;
  return z.string(wrong).transform((value, context): number => {
    const ms = parseDuration(value);
    if (ms !== undefined && ms >= parseDuration(least)! && ms <= parseDuration(most)!) return ms;
    context.addIssue({ code: 'custom', message: wrong });
    return z.NEVER;
  });
}
/** A default as it would be written in the file. */
const otherwise = <T extends z.ZodType<unknown, string>>(schema: T, value: string) =>
  schema.prefault(value as never);

/** One, or a list of several; always a list for the reader. */
const oneOrMore = <T extends z.ZodType>(item: T) =>
  z
    .union([
      item,
      z
        .array(item)
        .min(1, 'is an empty list, so the rule can never match. Leave the key out, or give a value'),
    ])
    .transform((value) => (Array.isArray(value) ? value : [value]) as z.infer<T>[]);

const maxPattern = 200;
/** At most so many steps × the length of a text are needed to match it. */
const pattern = z
  .string('must be text. Write numbers in quotes')
  .refine((value) => value.trim() !== '', 'must not be empty. “*” stands for any text')
  .max(maxPattern, `must have at most ${maxPattern} characters`)
  .refine((value) => {
    try {
      compilePattern(value);
      return true;
    } catch {
      return false;
    }
  }, 'has a \\ that does not stand before * or ?. Leave it out');
/** Without its stars, it must fit what DICOM allows. */
const patternOf = (what: string, most: number) =>
  pattern.refine(
    (value) => value.replaceAll(/\\(.)/gs, '$1').replaceAll('*', '').trim().length <= most,
    `can never match: ${what} has at most ${most} characters`,
  );

const modality = z
  .string(must('text'))
  .transform((value) => value.trim().toUpperCase())
  .refine((value) => /^[A-Z0-9_ ]{1,16}$/.test(value), 'must be a code of DICOM, such as CT, MR or PT');

const range = (what: string, value: z.ZodNumber) =>
  keys({
    min: value.optional().describe(`at least so ${what}`),
    max: value.optional().describe(`at most so ${what}`),
  });

const slices = z
  .number('must be a number')
  .int('must be a whole number')
  .min(1, 'must be 1 or more')
  .max(100_000, 'must be at most 100000');
const spacing = z
  .number('must be a number of mm')
  .positive('must be more than 0 mm')
  .max(1000, 'must be at most 1000 mm');

const dicomWeb = {
  url: address.describe('root of its DICOMweb service, such as `https://pacs.example/dicom-web`'),
  user: text.optional().describe('user for a login with a password'),
  passwordFile: text.optional().describe('file with the password of `user`'),
  tokenFile: text.optional().describe('file with a bearer token, instead of `user`'),
  caFile: text.optional().describe('certificates (PEM) of authorities to trust besides the system’s'),
};
const searched = {
  poll: otherwise(duration('1s', '1d'), '60s').describe('time between two searches'),
  since: otherwise(duration('1d', '3650d'), '3d').describe(
    'how far back a search looks, by the date of the study; whole days',
  ),
  quiet: otherwise(duration('0s', '1d'), '60s').describe(
    'a series counts as complete when its number of instances has not changed for so long',
  ),
};

export const sourceSchema = z.discriminatedUnion('type', [
  keys({ type: z.literal('dicomweb'), ...dicomWeb, ...searched }).describe(
    'A PACS that is searched over DICOMweb',
  ),
  keys({
    type: z.literal('orthanc'),
    ...dicomWeb,
    hookSecretFile: text.describe(
      'file with the secret that Orthanc sends with what it reports; at least 16 characters',
    ),
    ...searched,
  }).describe(
    'An Orthanc that reports complete series (`deploy/orthanc`). It is also searched, for what its reports missed',
  ),
  keys({
    type: z.literal('folder'),
    path: text.describe('the folder; those in it are read, too'),
    poll: otherwise(duration('1s', '1d'), '10s').describe('time between two looks'),
    quiet: otherwise(duration('0s', '1d'), '30s').describe(
      'a series counts as complete when no file of it has changed for so long',
    ),
  }).describe('A folder into which files are put. The gateway changes and deletes nothing in it'),
]);

export const serviceSchema = keys({
  url: address.describe('address of the server itself, not of a registry'),
  service: text.describe('id of the service there, as `tomaat discover` shows it'),
  apiKeyFile: text
    .optional()
    .describe('file with a key of that server (`tomaat keys create --scope predict`)'),
  caFile: text
    .optional()
    .describe('certificates (PEM) to trust besides the system’s, such as the server’s `tomaat.pem`'),
  fingerprint: text
    .optional()
    .describe('SHA-256 fingerprint of the server’s certificate, as it prints it at startup'),
});

export const destinationSchema = z.discriminatedUnion('type', [
  keys({ type: z.literal('dicomweb'), ...dicomWeb }).describe('A PACS that stores over DICOMweb (STOW-RS)'),
  keys({
    type: z.literal('source'),
    source: name.describe('name of a source of type `dicomweb` or `orthanc`'),
  }).describe('A source: results are stored where the series came from, with the same address and login'),
  keys({
    type: z.literal('folder'),
    path: text.describe('the folder; files are `STUDY/SERIES/INSTANCE.dcm` in it'),
  }).describe('A folder'),
]);

const texts = {
  modality: oneOrMore(modality)
    .optional()
    .describe(
      'of the series, such as `CT`. Without it, a rule takes images only: no segmentation, report, structure set',
    ),
  bodyPart: oneOrMore(patternOf('a body part', 16)).optional().describe('BodyPartExamined, such as `CHEST`'),
  description: oneOrMore(patternOf('a description', 64)).optional().describe('SeriesDescription'),
  studyDescription: oneOrMore(patternOf('a description', 64)).optional().describe('StudyDescription'),
  callingAet: oneOrMore(patternOf('the title of an application entity', 16))
    .optional()
    .describe('application entity that sent it; only Orthanc’s reports tell it'),
};
const fromSources = { sources: oneOrMore(name).optional().describe('names of sources') };

export const ruleSchema = keys({
  id: name.describe('name of the rule; results depend on it, so that a renamed rule computes again'),
  when: keys({
    ...fromSources,
    ...texts,
    slices: range('many slices', slices).optional().describe('number of slices of the volume'),
    sliceSpacingMm: range('many mm', spacing)
      .optional()
      .describe('distance of neighbouring slices, measured along the normal'),
    not: keys({ ...fromSources, ...texts })
      .optional()
      .describe('the same conditions; the rule does not take what meets one of these'),
  })
    .prefault({})
    .describe('conditions, all of which must hold; all series of images, if missing'),
  service: name.describe('name of the service'),
  destinations: z
    .array(name, 'must be a list')
    .min(1, 'is an empty list, so results would be lost. Give the name of a destination')
    .describe('names of destinations; results are stored at each of them'),
  parameters: z
    .record(z.string(), z.unknown())
    .default({})
    .describe('values of the service’s other inputs, by name'),
  results: z
    .array(z.enum(dicomFormats, `must be one of ${dicomFormats.join(', ')}`), 'must be a list')
    .min(1, 'is an empty list, so nothing would be stored. Leave the key out, or give a format')
    .default(['seg.dcm'])
    .describe('objects that are stored'),
  identity: z
    .enum(['remove', 'keep'], 'must be remove or keep')
    .default('remove')
    .describe('whether the patient’s identity is removed before images are sent to the service'),
  keepPatientCharacteristics: z
    .boolean('must be true or false')
    .default(false)
    .describe('keeps sex, age, size and weight where the rest is removed; SUV needs the weight'),
  urgency: z
    .number('must be a whole number from 0 (first) to 7')
    .int('must be a whole number')
    .min(0, 'must be from 0 (first) to 7')
    .max(7, 'must be from 0 (first) to 7')
    .default(3)
    .describe('0 (first) to 7 (last)'),
});

const whole = (most: number, what: string) =>
  z
    .number(`must be a whole number of ${what}`)
    .int(`must be a whole number of ${what}`)
    .min(1, 'must be 1 or more')
    .max(most, `must be at most ${most}`);

export const limitsSchema = keys({
  concurrency: whole(64, 'series').default(2).describe('series that are processed at the same time'),
  firstPause: otherwise(duration('1s', '1d'), '10s').describe(
    'pause after the first passing fault; each is twice the one before',
  ),
  longestPause: otherwise(duration('1s', '1d'), '10m').describe('longest pause'),
  giveUp: otherwise(duration('1m', '365d'), '3d').describe(
    'a series that meets only passing faults for so long fails',
  ),
  keep: otherwise(duration('1m', '3650d'), '14d').describe('how long ended series stay in the list'),
  maxSeriesBytes: whole(2 ** 40, 'bytes')
    .default(4 * 1024 ** 3)
    .describe('largest series, bytes'),
});

const byName = <T extends z.ZodType>(part: T, what: string) =>
  z
    .record(z.string(), part, must(`a map of ${what} by name`))
    .refine((map) => Object.keys(map).length > 0, `must have one of the ${what} at least`);

/** The whole file. */
export const gatewayFileSchema = keys({
  schemaVersion: z.literal(1, must('1')).describe('version of this format'),
  sources: byName(sourceSchema, 'sources').describe('where series come from'),
  services: byName(serviceSchema, 'services').describe('what computes'),
  destinations: byName(destinationSchema, 'destinations').describe('where results go'),
  rules: z
    .array(ruleSchema, must('a list'))
    .min(1, 'is an empty list. Give a rule at least')
    .max(1000, 'has more than 1000 rules')
    .describe('a series is processed once for each rule that matches it'),
  limits: limitsSchema.prefault({}).describe('limits'),
});

export type GatewayFile = z.infer<typeof gatewayFileSchema>;
export type SourceEntry = z.infer<typeof sourceSchema>;
export type ServiceEntry = z.infer<typeof serviceSchema>;
export type DestinationEntry = z.infer<typeof destinationSchema>;
export type RuleEntry = z.infer<typeof ruleSchema>;
