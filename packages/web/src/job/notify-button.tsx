import { dropNotification, notifyOf, useNotifyState } from '../notify.ts';

/** Asks for a notification when a job is done. */
export function NotifyButton({ jobId, serviceName }: { jobId: string; serviceName: string }) {
  const state = useNotifyState(jobId);
  if (state === 'missing') return null;
  if (state === 'blocked')
    return (
      <span className="fine">
        This browser blocks notifications of this page. Allow them in its settings for this site.
      </span>
    );
  return (
    <button
      type="button"
      className="quiet"
      aria-pressed={state === 'on'}
      onClick={() => (state === 'on' ? dropNotification(jobId) : void notifyOf(jobId, serviceName))}
    >
      {state === 'on' ? 'You will be notified' : 'Tell me when it is done'}
    </button>
  );
}
