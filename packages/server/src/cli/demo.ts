import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { createClient, createRegistryClient, type Entry, requireSuccess } from '@tomaat/client';
import { supportedExtensions, TomaatError } from '@tomaat/core';
import type { RunningRegistry } from '../registry/start.ts';
import type { RunningServer } from '../server.ts';
import { formatSeconds } from './console.ts';
import { labelLines } from './print-outcome.ts';

export interface DemoOptions {
  server: RunningServer;
  registry: RunningRegistry;
  /** Needed where login is on. */
  apiKey?: string;
  /** Whether the reader of this output can open the result. */
  isMine?: boolean;
  print(line: string): void;
  signal: AbortSignal;
}

/** Sends the bundled sample the way any user would: asks the registry, uploads to the server, waits, reads. */
export async function runDemo(options: DemoOptions): Promise<void> {
  try {
    await showSample(options);
  } catch (error) {
    if (options.signal.aborted) return;
    // A failed demo stops nothing: server and registry keep running.
    options.print(`  The demo did not finish: ${(error as Error).message}`);
  }
}

async function showSample(options: DemoOptions): Promise<void> {
  const { server, registry, apiKey, print, signal } = options;
  // Beyond loopback there is only HTTPS, with a certificate that this process can trust.
  if (!server.url)
    setDefaultCACertificates([...getCACertificates('default'), server.certificates.current.cert]);
  const entries = await createRegistryClient({ baseUrl: registry.localUrl, apiKey }).discover(
    { task: 'segmentation' },
    { live: true, signal },
  );
  const found = await firstWithSample(entries, options);
  if (!found)
    throw new TomaatError('NOT_FOUND', 'No service with a sample is announced. Start without --demo.');
  const { client, service, sample } = found;
  print(`\nDemo: the sample of “${service.name}” goes to ${service.task}/${service.anatomy} …`);
  const startedMs = performance.now();
  const [input] = service.inputs.filter((candidate) => candidate.type === 'volume');
  const accepted = await client.predict(service.id, {
    volumes: { [input.name]: new File([sample], 'sample.nii.gz') },
    signal,
  });
  const job = requireSuccess(await client.wait(accepted.id, { signal }));
  const measured = job.outputs.find((output) => output.type === 'Measurements');
  if (measured) {
    const file = await client.output(job.id, measured.name, { format: 'json', signal });
    const { labels } = JSON.parse(await (await file.blob()).text()) as { labels: unknown };
    for (const line of labelLines(labels)) print(line);
  }
  const primary = job.outputs.find((output) => output.primary)!;
  const seconds = (performance.now() - startedMs) / 1000;
  print(`  ${primary.fileName}, ${Math.ceil(primary.sizeBytes / 1000)} kB, in ${formatSeconds(seconds)}`);
  if (options.isMine !== false) print(`  See it: ${server.url ?? server.tlsUrl}/jobs/${job.id}`);
  print(
    `\nYour own volume:  npx tomaat predict ${service.task}/${service.anatomy} --volume FILE   (${supportedExtensions.map((extension) => `.${extension}`).join(', ')})`,
  );
  print('Press Ctrl-C to stop.');
}

async function firstWithSample(entries: readonly Entry[], { server, apiKey, signal }: DemoOptions) {
  const sorted = [...entries].sort((a, b) => rank(a) - rank(b));
  for (const entry of sorted) {
    // Only this server's own services: services that others announced here are not called unasked.
    if (entry.serverUrl !== server.announcedUrl || !entry.serviceId) continue;
    // The announced address may lead through a proxy, or not resolve on this machine.
    const baseUrl = server.localUrl;
    const client = createClient({ baseUrl, apiKey });
    // Announcements of servers that are gone are skipped.
    const service = await client.service(entry.serviceId, { signal }).catch(() => undefined);
    if (!service?.sample) continue;
    const headers: Record<string, string> = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
    const response = await fetch(new URL(service.sample, baseUrl), { headers, signal });
    return { client, service, sample: await response.blob() };
  }
  return undefined;
}

/** The most instructive samples come first. */
const shown = ['brain', 'ct-lung'];
const rank = ({ serviceId = '' }: Entry) =>
  shown.includes(serviceId) ? shown.indexOf(serviceId) : shown.length;
