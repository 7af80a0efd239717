import type { FastifyBaseLogger } from 'fastify';
import { type Certificate, type CertificateOptions, openCertificate, renewBeforeMs } from './tls.ts';

/** The certificate of a running server: read again on demand and once a day, and watched for its end. */
export interface Certificates extends Disposable {
  readonly current: Certificate;
  /** The names in the operator's certificate, under which the server answers; empty for a self-signed one. */
  names(): readonly string[];
  /** What is or will soon be wrong with it, in words for the operator. */
  fault(): string | undefined;
  /** Calls `use` with the current certificate after each change. */
  onChange(use: (certificate: Certificate) => void): void;
  /**
   * Rereads the files, or renews the self-signed certificate if necessary. Nothing changes on failure.
   * @throws TomaatError BAD_REQUEST as `openCertificate()` does.
   */
  reload(): Promise<void>;
}

export interface CertificatesOptions extends Omit<CertificateOptions, 'logger'> {
  readonly logger?: Pick<FastifyBaseLogger, 'info' | 'warn' | 'error'>;
  /** How often it is checked; once a day if missing. */
  readonly everyMs?: number;
}

const dayMs = 86_400_000;

export async function openCertificates(
  dataFolder: string,
  options: CertificatesOptions,
): Promise<Certificates> {
  const { logger, now = Date.now, everyMs = dayMs } = options;
  let current = await openCertificate(dataFolder, options);
  const users: ((certificate: Certificate) => void)[] = [];

  async function reload(): Promise<void> {
    const read = await openCertificate(dataFolder, options);
    if (read.cert === current.cert && read.key === current.key) return;
    current = read;
    for (const use of users) use(read);
    logger?.info(
      { fingerprint: read.fingerprint, validTo: new Date(read.validToMs).toISOString() },
      'the certificate was replaced; new connections get the new one',
    );
  }

  const fault = () => faultOf(current, now());
  function report(): void {
    const words = fault();
    if (words === undefined) return;
    const about = { validTo: new Date(current.validToMs).toISOString() };
    if (isValid(current, now())) logger?.warn(about, words);
    else logger?.error(about, words);
  }

  report();
  const timer = setInterval(() => {
    reload()
      .catch((error: unknown) =>
        logger?.error({ err: error }, `the certificate could not be reloaded: ${error}`),
      )
      .then(report);
  }, everyMs);
  timer.unref();

  return {
    get current() {
      return current;
    },
    names: () => (current.selfSigned ? [] : current.names),
    fault,
    onChange: (use) => users.push(use),
    async reload() {
      await reload();
      report();
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

const isValid = ({ validFromMs, validToMs }: Certificate, nowMs: number) =>
  validFromMs <= nowMs && nowMs < validToMs;

function faultOf({ certFile, validFromMs, validToMs }: Certificate, nowMs: number): string | undefined {
  const time = (ms: number) => new Date(ms).toISOString().replace(/\.\d+/, '');
  const renew = 'Replace the files, then send SIGHUP to the server (systemctl reload tomaat)';
  if (nowMs < validFromMs) {
    return `The certificate ${certFile} is not valid before ${time(validFromMs)}, and clients refuse it until then. Check the clock of this machine, or use a certificate that is valid now.`;
  }
  if (nowMs >= validToMs)
    return `The certificate ${certFile} expired at ${time(validToMs)}: clients refuse it. ${renew}.`;
  const days = Math.floor((validToMs - nowMs) / dayMs);
  if (validToMs - nowMs <= renewBeforeMs) {
    const left = days === 0 ? 'today' : days === 1 ? 'in 1 day' : `in ${days} days`;
    return `The certificate ${certFile} expires ${left}, at ${time(validToMs)}: clients refuse it from then on. ${renew}.`;
  }
  return undefined;
}
