import type { Service } from '@tomaat/client';
import { useState } from 'react';
import { useLocation } from 'wouter';
import { whereItGoes, whereItStays } from '../access-texts.ts';
import { computeHere, whyNotHere } from '../compute/runs.ts';
import { formatBytes } from '../format.ts';
import { useMe } from '../login.tsx';
import type { Submission } from '../store.ts';
import { type Fault, faultOf, Problem } from '../ui.tsx';
import { submit, uploadLife } from '../upload.ts';

/** The end of a service's form: where the prediction is computed, and what leaves this browser for it. */

export type Where = 'server' | 'here';

/** The places that a service allows; the first is the usual one. */
export function placesOf({ compute = 'server' }: Pick<Service, 'compute'>): readonly Where[] {
  if (compute === 'caller') return ['here'];
  return compute === 'anywhere' ? ['server', 'here'] : ['server'];
}

/** Whether this browser may compute it, and otherwise why not. */
export function whetherHere(service: Pick<Service, 'compute' | 'runtime'>): string {
  if (placesOf(service).includes('here')) return 'possible: nothing is sent';
  if (service.runtime === 'onnx') return 'not possible: the model does not leave the server';
  if (service.runtime === 'oip') return 'not possible: a model server computes it';
  return 'not possible: a program of the author computes it, and pages run none';
}

function whatIsSent(places: readonly Where[], size: string): string {
  if (!places.includes('server')) return 'Nothing will be sent.';
  return places.includes('here') ? `“Send and compute” sends ${size}.` : `${size} will be sent.`;
}

export interface Sending {
  /** Where a prediction is about to start. */
  readonly busy: Where | undefined;
  readonly fault: Fault | undefined;
  start(where: Where): Promise<void>;
}

/** Starts a prediction, and goes to the page of its progress. */
export function useSending(makeSubmission: () => Promise<Submission>): Sending {
  const [, navigate] = useLocation();
  const [busy, setBusy] = useState<Where>();
  const [fault, setFault] = useState<Fault>();
  return {
    busy,
    fault,
    async start(where) {
      if (busy) return;
      setBusy(where);
      setFault(undefined);
      try {
        const submission = await makeSubmission();
        navigate(await (where === 'here' ? computeHere(submission) : submit(submission)));
      } catch (error) {
        setFault(faultOf(error));
        setBusy(undefined);
      }
    },
  };
}

export function SendPanel({
  service,
  missing,
  sizeBytes,
  sending,
}: {
  service: Service;
  /** What has to be done first, in sentences. */
  missing: readonly string[];
  sizeBytes: number;
  sending: Sending;
}) {
  const me = useMe();
  const places = placesOf(service);
  const notHere = places.includes('here') ? whyNotHere() : undefined;
  const isBusy = sending.busy !== undefined;
  const here = (
    <button
      type={places[0] === 'here' ? 'submit' : 'button'}
      className={places[0] === 'here' ? 'primary' : 'quiet'}
      disabled={missing.length > 0 || isBusy || notHere !== undefined}
      aria-describedby="where-it-stays missing"
      onClick={places[0] === 'here' ? undefined : () => void sending.start('here')}
    >
      {sending.busy === 'here' ? 'Preparing …' : 'Compute on this computer'}
    </button>
  );
  return (
    <>
      <div className="send">
        {places.includes('server') && (
          <button
            type="submit"
            className="primary"
            disabled={missing.length > 0 || isBusy}
            aria-describedby="where-it-goes missing"
          >
            {sending.busy === 'server' ? 'Preparing …' : 'Send and compute'}
          </button>
        )}
        {places.includes('here') && here}
        <p id="missing" className="fine" role="status">
          {missing.length > 0 ? missing.join(' ') : whatIsSent(places, formatBytes(sizeBytes))}
        </p>
      </div>
      {places.includes('server') && (
        <p id="where-it-goes" className="where-it-goes">
          {whereItGoes(me.data, { host: location.host, keepSeconds: service.keepSeconds, uploadLife })}
        </p>
      )}
      {places.includes('here') && (
        <p id="where-it-stays" className="where-it-goes">
          {notHere ?? whereItStays({ host: location.host })}
        </p>
      )}
      {sending.fault && <Problem fault={sending.fault} />}
    </>
  );
}
