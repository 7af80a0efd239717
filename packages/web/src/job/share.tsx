import type { JobIn } from '@tomaat/client';
import { whoOpens } from '../access-texts.ts';
import { useMe } from '../login.tsx';
import { Time } from '../time.tsx';
import { CopyButton } from '../ui.tsx';
import { useExpiry } from './keep.tsx';
import { ResultActions } from './result-actions.tsx';

/** The address of a result, and what else can be done with it. */
export function Share({ job }: { job: JobIn<'succeeded'> }) {
  const me = useMe();
  const expiresTime = useExpiry(job);
  return (
    <section className="panel share" aria-labelledby="share-title">
      <h2 id="share-title">Link</h2>
      <p className="fine">
        This address shows the result, without the scan, until the server deletes it (
        <Time at={expiresTime} />
        ). {whoOpens(me.data)}
      </p>
      <div className="actions">
        <CopyButton text={location.href} label="Copy the link" />
        <ResultActions job={job} again="Send another scan" />
      </div>
    </section>
  );
}
