import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import envPaths from 'env-paths';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { isIssuerAddress, parseClaimRule } from './access/claims.ts';

/** Where data lies unless told otherwise: the user's data folder. */
export const defaultDataFolder = (): string => envPaths('tomaat', { suffix: '' }).data;

/** The data folder that a command is about. */
export const dataFolderFor = ({ data }: { data?: string }): string =>
  data ?? process.env.TOMAAT_DATA ?? defaultDataFolder();

/** A number, or text that looks like one (as a variable or flag gives it); nothing else, and nothing empty. */
const numeric = (schema: z.ZodNumber) =>
  z.preprocess(
    (value) =>
      typeof value === 'string' && /^\s*[+-]?\d+(\.\d+)?(e\+?\d+)?\s*$/i.test(value) ? Number(value) : value,
    schema,
  );
const aPort = 'must be a port, 0 to 65535 (0: a free one)';
const port = numeric(z.number(aPort).int(aPort).min(0, aPort).max(65_535, aPort));
const list = (item: z.ZodType<string>) =>
  z.preprocess(
    (value) =>
      typeof value === 'string'
        ? value
            .split(',')
            .map((part) => part.trim())
            .filter(Boolean)
        : value,
    z.array(item, 'must be a list'),
  );
const truths: Record<string, boolean> = {
  true: true,
  '1': true,
  yes: true,
  on: true,
  false: false,
  '0': false,
  no: false,
  off: false,
};
const flag = z.preprocess(
  (value) => (typeof value === 'string' ? (truths[value.toLowerCase()] ?? value) : value),
  z.boolean('must be true or false'),
);
const count = (least: number, what: string) =>
  numeric(
    z
      .number(`must be a whole number ${what}`)
      .int(`must be a whole number ${what}`)
      .min(least, `must be at least ${least}`),
  );
const text = z.string('must be text').min(1, 'must not be empty');
const claimRule = z.string('must be text').refine((rule) => parseClaimRule(rule) !== undefined, {
  error: 'must be CLAIM=VALUE, such as groups=radiology or email=@hospital.example',
});
const httpAddress = z.url({ protocol: /^https?$/, error: 'must be an http or https address' });

const plainAddress = httpAddress
  .refine((address) => !/[?#]|\/\/[^/]*@/.test(address), {
    error: 'must be a plain address, such as https://server.example',
  })
  .transform(withoutTrailingSlashes);

/**
 * Everything that an operator can set, for `tomaat up`, `serve` and `registry`. Each key is a line of
 * `tomaat.config.yaml` (tlsPort: 9443), a variable (TOMAAT_TLS_PORT=9443) and a flag (--tls-port 9443).
 */
export const configSchema = z.strictObject({
  data: text.describe('Folder of the databases, blobs and the self-signed certificate'),
  host: text.default('127.0.0.1').describe('Address to listen on'),
  port: port.default(9000).describe('HTTP port of the server'),
  tlsPort: port.default(9443).describe('HTTPS port of the server'),
  registryPort: port.default(8001).describe('Port of the registry'),
  tlsCert: text.optional().describe('Certificate (PEM) instead of a self-signed one'),
  tlsKey: text.optional().describe('Key (PEM) of that certificate'),
  announce: list(httpAddress).default([]).describe('Registries to announce the services to'),
  announceKey: text.optional().describe('Key with the scope announce, for those registries'),
  publicUrl: plainAddress
    .optional()
    .describe('Address at which others reach the server, such as that of a proxy in front of it'),
  registryPublicUrl: plainAddress.optional().describe('The same of the registry beside the server'),
  ca: text
    .optional()
    .describe(
      'Certificates (PEM) to trust besides the usual ones: of registries, and of servers announced here',
    ),
  default: text.optional().describe('Id of the service that TOMAAT v1 clients get'),
  allowNet: list(z.union([z.cidrv4(), z.cidrv6()], 'must be a range such as 10.1.0.0/16'))
    .default([])
    .describe('Networks, besides loopback, that the registry may pass requests on to'),
  oidcIssuer: text
    .refine(isIssuerAddress, {
      error: 'must be an https address, without ? and # (http on this machine alone)',
    })
    .optional()
    .describe('OpenID Connect issuer that logs people in'),
  oidcClientId: text.optional().describe('Id by which that issuer knows this server'),
  oidcClientSecret: text
    .optional()
    .describe('Secret that goes with it; no flag, as others could read it there'),
  oidcScopes: list(text)
    .default(['openid', 'profile', 'email'])
    .describe('Scopes that the issuer is asked for; openid has to be one'),
  oidcAllow: list(claimRule)
    .default([])
    .describe('Whom of its users the server serves, as CLAIM=VALUE; all if missing'),
  oidcAdmin: list(claimRule).default([]).describe('Who of them may do everything, as CLAIM=VALUE'),
  oidcAudience: text.optional().describe('Audience of tokens of the issuer that programs may send'),
  login: flag.default(false).describe('Whether a caller needs a key; beyond this machine it has to be on'),
  tlsSelfMade: flag
    .default(false)
    .describe('That the self-signed certificate is wanted beyond this machine, where none is given'),
  allowHost: list(z.string().regex(/^[a-z0-9_.-]+$|^\[?[0-9a-f:.]+\]?$/i, 'must be a name or an address'))
    .default([])
    .describe('Names, besides its own, by which the server is called'),
  allowOrigin: list(
    httpAddress.refine((origin) => URL.canParse(origin) && new URL(origin).origin === origin, {
      error: 'must be an origin such as https://viewer.example',
    }),
  )
    .default([])
    .describe('Origins of pages, besides our own, that may send requests'),
  legacyPort: port
    .optional()
    .describe('HTTPS port of the server for TOMAAT v1 without login; none if missing'),
  registryLegacyPort: port
    .optional()
    .describe('HTTPS port of the registry for TOMAAT v1 without login; none if missing'),
  legacyPerMinute: count(1, 'of requests')
    .default(60)
    .describe('Requests a minute that one address may send to those ports'),
  maxUploadBytes: count(1, 'of bytes')
    .default(2 * 1024 ** 3)
    .describe('Largest upload'),
  minBytesPerSecond: count(0, 'of bytes')
    .default(8192)
    .describe('Slowest pace of whoever sends an upload or fetches a result; 0: any'),
  maxVoxels: count(1, 'of voxels')
    .default(2 ** 30)
    .describe('Largest volume'),
  maxQueued: count(1, 'of predictions').default(1000).describe('Most predictions that wait'),
  workers: count(0, 'of predictions')
    .default(1)
    .describe('Predictions at a time; 0: all by workers elsewhere'),
  drainSeconds: count(0, 'of seconds')
    .default(20)
    .describe('How long what runs may go on when the server is stopped'),
  memoryMb: count(0, 'of MB')
    .optional()
    .describe(
      'Memory of one prediction whose app does not say, MB; a share of the machine’s if missing, 0: no limit',
    ),
  maxIdleMb: count(0, 'of MB')
    .optional()
    .describe('Memory of idle models, MB; a quarter of the machine’s if missing'),
  stripInputs: flag
    .default(false)
    .describe('Take text that may tell whose scan it is out of inputs before they are kept'),
  keepMinutes: count(1, 'of minutes').default(60).describe('How long results are kept, minutes'),
  logLevel: z
    .enum(
      ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
      'must be one of: trace, debug, info, warn, error, silent',
    )
    .default('info')
    .describe('How much is logged'),
});
export type Config = Readonly<z.infer<typeof configSchema>>;
export type ConfigKey = keyof Config;
export type ConfigSource = 'default' | 'file' | 'env' | 'flag';

export interface LoadedConfig {
  readonly config: Config;
  /** Which layer each key came from: a port that nobody chose may move on when it is taken. */
  readonly sources: Readonly<Record<ConfigKey, ConfigSource>>;
  readonly file?: string;
}

export interface ConfigLayers {
  /** As the command line gives them; undefined where a flag was not given. */
  flags?: Partial<Record<ConfigKey, unknown>>;
  /** --config: this file instead of tomaat.config.yaml in the data folder. */
  configFile?: string;
  env?: NodeJS.ProcessEnv;
}

const fileName = 'tomaat.config.yaml';
const keys = Object.keys(configSchema.shape) as ConfigKey[];
const kebab = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const variableOf = (key: string) => `TOMAAT_${kebab(key).replaceAll('-', '_').toUpperCase()}`;

/**
 * The configuration, layered once: defaults, then the file, then TOMAAT_… variables, then flags. All faults of
 * all layers are reported in one BAD_REQUEST, each with where it stands.
 */
export function loadConfig({ flags = {}, configFile, env = process.env }: ConfigLayers = {}): LoadedConfig {
  const faults: string[] = [];
  const values: Partial<Record<ConfigKey, unknown>> = {};
  const sources = Object.fromEntries(keys.map((key) => [key, 'default'])) as Record<ConfigKey, ConfigSource>;

  const put = (source: ConfigSource, key: ConfigKey, raw: unknown, name: string) => {
    const parsed = configSchema.shape[key].safeParse(raw);
    if (!parsed.success) {
      const shown =
        typeof raw === 'string' || typeof raw === 'number' ? ` “${String(raw).slice(0, 60)}”` : '';
      faults.push(
        `${name}${shown} ${[...new Set(parsed.error.issues.map((issue) => issue.message))].join(', ')}.`,
      );
      return;
    }
    values[key] = parsed.data;
    sources[key] = source;
  };

  const asked = configFile ?? env.TOMAAT_CONFIG;
  const dataOf = flags.data ?? env.TOMAAT_DATA ?? defaultDataFolder();
  const path = asked ?? join(String(dataOf), fileName);
  const file = existsSync(path) ? path : undefined;
  if (asked !== undefined && !file) faults.push(`There is no configuration file ${asked}. Check --config.`);
  for (const [key, raw] of Object.entries(file ? readConfigFile(file, faults) : {})) {
    if (isKey(key)) put('file', key, raw, `${key} in ${file}:`);
    else faults.push(`${key} in ${file} is no setting.${didYouMean(key)}`);
  }
  for (const key of keys) {
    const name = variableOf(key);
    const raw = env[name];
    // Kubernetes sets TOMAAT_PORT=tcp://… for a Service that is called tomaat.
    if (raw !== undefined && raw !== '' && !/^(tcp|udp):\/\//.test(raw)) put('env', key, raw, `${name}:`);
  }
  for (const key of keys) if (flags[key] !== undefined) put('flag', key, flags[key], `--${kebab(key)}`);

  if (values.data === undefined) values.data = defaultDataFolder();
  if ((values.tlsCert === undefined) !== (values.tlsKey === undefined)) {
    faults.push('--tls-cert and --tls-key go together. Give both, or neither.');
  }
  if ((values.oidcIssuer === undefined) !== (values.oidcClientId === undefined)) {
    faults.push('--oidc-issuer and --oidc-client-id go together. Give both, or neither.');
  } else if (values.oidcIssuer === undefined) {
    const alone = keys.filter((key) => key.startsWith('oidc') && values[key] !== undefined);
    if (alone.length > 0)
      faults.push(`${alone.join(', ')} is of no use without --oidc-issuer. Give that, too.`);
  }
  if (values.oidcIssuer !== undefined && values.login !== true)
    faults.push('--oidc-issuer is of no use without --login. Give that, too.');
  const scopes = values.oidcScopes as readonly string[] | undefined;
  if (scopes && !scopes.includes('openid')) faults.push('--oidc-scopes lacks openid. Add it.');
  if (faults.length > 0) {
    const head = faults.length === 1 ? '' : `${faults.length} settings are wrong:\n`;
    throw new TomaatError(
      'BAD_REQUEST',
      head + faults.map((fault) => (head ? `  - ${fault}` : fault)).join('\n'),
    );
  }
  const config = configSchema.parse(values);
  return {
    config: Object.freeze({ ...config, data: resolve(config.data) }),
    sources: Object.freeze(sources),
    file,
  };
}

function readConfigFile(file: string, faults: string[]): Record<string, unknown> {
  let data: unknown;
  try {
    data = parseYaml(readFileSync(file, 'utf8'));
  } catch (error) {
    faults.push(`${file} cannot be read: ${(error as Error).message.split('\n')[0]}`);
    return {};
  }
  if (data === null || data === undefined) return {};
  if (typeof data !== 'object' || Array.isArray(data)) {
    faults.push(`${file} has to hold lines such as “port: 9000”.`);
    return {};
  }
  return data as Record<string, unknown>;
}

function isKey(key: string): key is ConfigKey {
  return Object.hasOwn(configSchema.shape, key);
}

function didYouMean(key: string): string {
  const plain = (word: string) => word.replace(/[-_]/g, '').toLowerCase();
  const close =
    keys.find((known) => plain(known) === plain(key)) ??
    keys.find((known) => plain(known).startsWith(plain(key).slice(0, 4)));
  return close ? ` Did you mean ${close}?` : ` The settings are: ${keys.join(', ')}.`;
}
