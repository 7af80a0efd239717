/**
 * What an operator can set, for `tomaat up`, `serve` and `registry`: what it is, and what holds where it is not set. Each
 * key is a line of `tomaat.config.yaml` (tlsPort: 9443), a variable (TOMAAT_TLS_PORT=9443) and a flag (--tls-port 9443).
 * What values it may have is in `config.ts`. Plain data, so that a help text loads nothing else.
 */

export interface Setting {
  /** What the flag takes, as a help text shows it; missing for a switch. */
  readonly value?: `<${string}>`;
  /** A secret has no flag, as others could read it there. */
  readonly hasNoFlag?: true;
  readonly about: string;
  /** May be given more than once. */
  readonly isList?: true;
  /** What holds where it is not set. A list is empty and a switch is off if missing; anything else has no value. */
  readonly default?: string | number | readonly string[];
  /** How the help says that, where the value alone does not. */
  readonly defaultText?: string;
  /** A value with a meaning of its own, told beside the default. */
  readonly special?: string;
}

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

export const settings = {
  data: {
    value: '<dir>',
    about: 'folder of databases, results and certificate',
    defaultText: 'the user’s data folder',
  },
  host: { value: '<address>', about: 'address to listen on', default: '127.0.0.1' },
  port: { value: '<number>', about: 'HTTP port of the server; 0: a free one', default: 9000 },
  tlsPort: { value: '<number>', about: 'HTTPS port of the server', default: 9443 },
  registryPort: { value: '<number>', about: 'port of the registry', default: 8001 },
  tlsCert: { value: '<file>', about: 'certificate (PEM) instead of a self-signed one' },
  tlsKey: { value: '<file>', about: 'its key (PEM)' },
  announce: { value: '<url>', about: 'announce the services to this registry', isList: true },
  announceKey: {
    value: '<key>',
    about: 'key for announcing (better: the variable TOMAAT_ANNOUNCE_KEY); also --api-key',
  },
  publicUrl: {
    value: '<url>',
    about: 'address at which others reach the server, such as that of a proxy in front of it',
  },
  registryPublicUrl: {
    value: '<url>',
    about: 'address at which others reach the registry, such as that of a proxy in front of it',
  },
  ca: {
    value: '<file>',
    about:
      'certificates (PEM) to trust as well: of registries, and of servers that the registry passes requests on to',
  },
  default: { value: '<id>', about: 'service that TOMAAT v1 clients get', defaultText: 'the first' },
  allowNet: {
    value: '<range>',
    about: 'network that the registry may pass requests on to, such as 10.1.0.0/16',
    isList: true,
  },
  oidcIssuer: {
    value: '<url>',
    about: 'OpenID Connect issuer that logs people in (its secret: TOMAAT_OIDC_CLIENT_SECRET)',
  },
  oidcClientId: { value: '<id>', about: 'id by which that issuer knows this server' },
  oidcClientSecret: { hasNoFlag: true, about: 'secret that goes with it' },
  oidcScopes: {
    value: '<list>',
    about: 'scopes that the issuer is asked for',
    default: ['openid', 'profile', 'email'],
  },
  oidcAllow: {
    value: '<CLAIM=VALUE>',
    about: 'serve only users whose token says so, such as groups=radiology',
    isList: true,
    defaultText: 'all',
  },
  oidcAdmin: { value: '<CLAIM=VALUE>', about: 'users whose token says so may do everything', isList: true },
  oidcAudience: {
    value: '<name>',
    about: 'programs may send tokens of the issuer for this audience',
    defaultText: 'they may not',
  },
  login: { about: 'let in only callers with a key (tomaat keys), or who are logged in' },
  tlsSelfMade: { about: 'listen beyond this machine with the self-signed certificate' },
  allowHost: { value: '<name>', about: 'another name by which this machine is called', isList: true },
  allowOrigin: {
    value: '<origin>',
    about: 'another site whose pages may send requests, such as https://viewer.example',
    isList: true,
  },
  legacyPort: {
    value: '<number>',
    about: 'open a port for TOMAAT v1 clients that cannot log in; 0: a free one',
  },
  registryLegacyPort: { value: '<number>', about: 'the same for the registry: TOMAAT v1 without login' },
  legacyPerMinute: {
    value: '<number>',
    about: 'requests a minute that one address may send to a legacy port',
    default: 60,
  },
  maxUploadBytes: {
    value: '<number>',
    about: 'largest upload',
    default: 2 * 1024 ** 3,
    defaultText: '2 GiB',
  },
  minBytesPerSecond: {
    value: '<number>',
    about: 'slowest pace of a client that sends an upload or fetches a result',
    default: 8192,
    special: '0: any',
  },
  maxVoxels: {
    value: '<number>',
    about: 'largest volume',
    default: 2 ** 30,
    defaultText: '2^30 voxels',
  },
  maxQueued: { value: '<number>', about: 'most predictions that wait', default: 1000 },
  workers: { value: '<number>', about: 'predictions at a time; 0: all by “tomaat worker”', default: 1 },
  drainSeconds: { value: '<number>', about: 'how long what runs may go on at the end', default: 20 },
  memoryMb: {
    value: '<number>',
    about: 'memory of one prediction whose app does not say, MB',
    defaultText: 'a share of the machine’s',
    special: '0: no limit',
  },
  maxIdleMb: {
    value: '<number>',
    about: 'memory that idle models may take',
    defaultText: 'a quarter of the machine’s',
  },
  stripInputs: { about: 'take text that may tell whose scan it is out of inputs before they are kept' },
  keepMinutes: { value: '<number>', about: 'how long results are kept', default: 60 },
  logLevel: { value: '<level>', about: `${logLevels.slice(0, -1).join(', ')} or silent`, default: 'info' },
} as const satisfies Record<string, Setting>;

/** The server and the registry on this machine, where no port was set. */
export const defaultServer = `http://${settings.host.default}:${settings.port.default}`;
export const defaultRegistry = `http://${settings.host.default}:${settings.registryPort.default}`;

/** `tlsPort` as in its flag: `tls-port`. */
export const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** The setting in a line, with what holds where it is not set: for help texts. */
export function describeSetting({ about, isList, default: value, defaultText, special }: Setting): string {
  const standard = defaultText ?? (value === undefined ? undefined : String(value));
  const told = [standard && `default: ${standard}`, special].filter(Boolean).join('; ');
  return [about, isList && '; may be repeated', told && ` (${told})`].filter(Boolean).join('');
}
