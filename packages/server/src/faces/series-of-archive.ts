import { TomaatError, type VolumeFactsOf } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import { digestOfUid } from '../audit/uid-digest.ts';
import type { ServerContext } from '../http/context.ts';
import { clientGone } from '../http/send.ts';
import type { BodyPart } from '../intake/body-part.ts';
import { type FetchedSeries, isSeriesUid, type SeriesSource } from '../intake/series-source.ts';

/*
 * A request that names a DICOM series by its UID instead of sending it: a viewer shows the series from the archive, and the server
 * fetches it from there.
 */

/** Whether the name of an image may be a UID. One without a dot is too likely another name. */
export const mayBeSeries = (image: string): boolean => image.includes('.') && isSeriesUid(image);

/** A series for a request. */
export interface SeriesOfRequest {
  /** Its files, as parts of the request, with all limits of uploads. */
  readonly parts: AsyncIterable<BodyPart>;
  /**
   * A viewer lays the result over all images of the series, in the order of their positions. It fits only if the volume consists
   * of exactly these: no time points, and no localizer that was left out.
   *
   * @throws TomaatError BAD_INPUT
   */
  requireSlices(shapes: Readonly<Record<string, VolumeFactsOf>>): void;
}

/**
 * Looks a series up in the archive. Its parts have the name of the input. What is fetched is recorded in the audit log.
 *
 * @throws TomaatError NOT_FOUND if the operator named no archive, or it has no such series; FORBIDDEN for callers at the legacy
 *   port, unless they are pages of --allow-origin; BAD_INPUT, BUSY, UNREACHABLE, UPSTREAM and UPLOAD_TOO_LARGE as SeriesSource.find()
 */
export async function findSeries(
  request: FastifyRequest,
  reply: FastifyReply,
  { uid, input, app }: { uid: string; input: string; app: App },
  context: ServerContext,
): Promise<SeriesOfRequest> {
  const { archive } = context;
  if (!archive) throw noArchive();
  requireCaller(request, reply);
  const gone = clientGone(reply);
  const found = await find(archive, uid, gone, request, context);
  return {
    parts: recorded(archive.parts(found, input, gone), found, request, app, context),
    requireSlices: (shapes) => requireSlices(shapes, found),
  };
}

/** At the legacy port nobody logs in: only pages may, which cannot pretend to be of another origin. */
function requireCaller({ principal }: FastifyRequest, reply: FastifyReply): void {
  if (principal?.via !== 'legacy' || reply.hasHeader('access-control-allow-origin')) return;
  throw new TomaatError(
    'FORBIDDEN',
    'Series of the archive are fetched for callers with an API key, and for pages of origins that the operator named (--allow-origin). Use a port with login.',
    { field: 'image' },
  );
}

async function find(
  archive: SeriesSource,
  uid: string,
  gone: AbortSignal,
  request: FastifyRequest,
  { audit, ownerOf }: ServerContext,
): Promise<FetchedSeries> {
  try {
    return await archive.find(uid, gone);
  } catch (error) {
    if (error instanceof TomaatError && error.code === 'NOT_FOUND') {
      const { keyId } = request.principal ?? {};
      const who = ownerOf(request);
      audit.record('access.denied', { who, keyId, series: digestOfUid(uid), outcome: error.code });
    }
    throw error;
  }
}

async function* recorded(
  parts: AsyncIterable<BodyPart>,
  found: FetchedSeries,
  request: FastifyRequest,
  { manifest }: App,
  { audit, ownerOf }: ServerContext,
): AsyncGenerator<BodyPart> {
  let outcome = 'broken off';
  try {
    yield* parts;
    outcome = 'whole';
  } catch (error) {
    if (error instanceof TomaatError) outcome = error.code;
    throw error;
  } finally {
    audit.record('series.fetched', {
      who: ownerOf(request),
      keyId: request.principal?.keyId,
      service: manifest.id,
      study: digestOfUid(found.study),
      series: digestOfUid(found.series),
      count: found.files,
      outcome,
    });
  }
}

function requireSlices(shapes: Readonly<Record<string, VolumeFactsOf>>, { files }: FetchedSeries): void {
  for (const { size, components } of Object.values(shapes)) {
    if (files <= size[2] && components === 1) continue;
    throw new TomaatError(
      'BAD_INPUT',
      `The series is more than one volume of ${size[2]} slices: it has several values in each place, or images beside them, such as localizers. A viewer would show the result in wrong places. Choose a series of one volume.`,
      { field: 'image' },
    );
  }
}

const noArchive = () =>
  new TomaatError(
    'NOT_FOUND',
    'There is no such image of yours here, and this server has no archive to fetch a series from. Upload the image first, or ask the operator for the setting dicomweb.',
    { field: 'image' },
  );
