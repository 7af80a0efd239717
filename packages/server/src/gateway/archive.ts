import { createDicomWeb, type DicomWeb, type DicomWebOptions } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { DicomWebAddress } from './config.ts';
import type { Connect } from './dependencies.ts';

type Fetch = typeof globalThis.fetch;

/**
 * An archive that is searched, read or written, over DICOMweb. Its certificate is checked before the first request, as for a service:
 * by the authorities of the system and of `caFile`, or as remembered with `tomaat trust`; and again after a request that failed, because
 * the certificate may have been renewed.
 */
export function openArchive(
  { url, authorization, caFile }: DicomWebAddress,
  connect: Connect,
  options: Pick<DicomWebOptions, 'retries' | 'maxInstanceBytes'> = {},
): DicomWeb {
  // Not the promise: it ends with the signal of one request, which is none of the others' business.
  let reached: { readonly fetch: Fetch } | undefined;
  const fetch: Fetch = async (input, init) => {
    try {
      reached ??= await connect(url, { ca: caFile, signal: init?.signal ?? undefined });
      return await reached.fetch(input, init);
    } catch (error) {
      reached = undefined;
      throw missingFile(error, caFile);
    }
  };
  const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
  return createDicomWeb({ ...options, url, headers, fetch });
}

/** It passes: the series need not fail for a file that the operator puts back. */
function missingFile(error: unknown, caFile: string | undefined): unknown {
  const { code, path } = error as NodeJS.ErrnoException;
  if (caFile === undefined || path !== caFile) return error;
  return new TomaatError('UNREACHABLE', `${caFile} cannot be read (${code}). Check caFile.`, {
    cause: error,
    detail: { hopeless: true },
  });
}
