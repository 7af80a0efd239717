import { useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import {
  countDown,
  finishDeletion,
  holdDeletion,
  type Notice,
  resumeDeletions,
  undoDeletion,
  useDeletionNotice,
} from './deletion.ts';
import { useLogins } from './logins.ts';
import { faultOf } from './ui.tsx';

/** What was deleted and can be undone, and what the server said to it. */
export function DeletionNotice() {
  const notice = useDeletionNotice();
  const queries = useQueryClient();
  const logins = useLogins();
  // biome-ignore lint/correctness/useExhaustiveDependencies: after a login the server takes what it refused before
  useEffect(resumeDeletions, [logins]);
  const code = notice && notice.state !== 'undoable' ? faultOf(notice.error).code : undefined;
  useEffect(() => {
    if (code === 'UNAUTHORIZED') void queries.invalidateQueries({ queryKey: ['me'] });
  }, [code, queries]);
  return (
    <div
      className="deletion"
      role="status"
      onPointerEnter={holdDeletion}
      onPointerLeave={countDown}
      onFocus={holdDeletion}
      onBlur={countDown}
    >
      {notice && (
        <div className="deletion-notice">
          <span>{textOf(notice)}</span>
          <span className="deletion-actions">
            {notice.state === 'undoable' && (
              <button type="button" className="quiet small" onClick={undoDeletion}>
                Undo
              </button>
            )}
            <button type="button" className="quiet small" onClick={finishDeletion}>
              {notice.state === 'undoable' ? 'Delete now' : 'Close'}
            </button>
          </span>
        </div>
      )}
    </div>
  );
}

function textOf(notice: Notice): string {
  if (notice.state === 'undoable')
    return notice.keys.length === 1 ? 'Deleted.' : `${notice.keys.length} jobs deleted.`;
  const { message, code } = faultOf(notice.error);
  if (notice.state === 'refused') return `Not deleted. ${message}`;
  return code === 'UNAUTHORIZED'
    ? 'Not yet deleted on the server. Log in, and it is deleted.'
    : 'Not yet deleted on the server, which does not respond. This page keeps trying, and tries again at your next visit.';
}
