import { useQueryClient } from '@tanstack/react-query';
import { describeError, type ErrorCode, errorCodes, TomaatError } from '@tomaat/core';
import { type ReactNode, useEffect, useState } from 'react';
import { formatSlug, sentence } from './format.ts';
import { useLogins } from './logins.ts';

/** The small components that every page uses. */

export function useTitle(title: string | undefined): void {
  useEffect(() => {
    document.title = title ? `${title} · TOMAAT` : 'TOMAAT';
  }, [title]);
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="loading" role="status">
      <span className="spinner" aria-hidden="true" />
      {what}
    </p>
  );
}

export interface Fault {
  title: string;
  message: string;
  code?: string;
  requestId?: string;
}

/** Any error as shown to the user: a title, what was wrong and what to do. */
export function faultOf(error: unknown): Fault {
  // The server's message is addressed to programs: send a key.
  if (error instanceof TomaatError && error.code === 'UNAUTHORIZED') {
    return {
      title: 'Your session has ended',
      message: 'You are no longer logged in. Log in again, then repeat your last action.',
      code: error.code,
    };
  }
  if (error instanceof TomaatError) {
    const requestId = error.detail?.requestId;
    return {
      title: titleOf(error.code),
      message: sentence(error.message),
      code: error.code,
      requestId: typeof requestId === 'string' ? requestId : undefined,
    };
  }
  return {
    title: 'Something went wrong on this page',
    message: `${error instanceof Error ? error.message : String(error)}. Reload the page and try again.`,
  };
}

/** Whether the server, or what it needs, is away for now. */
export const isAway = (error: unknown): boolean =>
  error instanceof TomaatError && ['UNREACHABLE', 'UPSTREAM', 'BUSY'].includes(error.code);

/** A notice where the page keeps asking. */
export const NotResponding = ({ children }: { children?: ReactNode }) => (
  <p className="notice" role="status">
    The server is not responding. {children} This page keeps trying.
  </p>
);

export function titleOf(code: string): string {
  return (errorCodes as readonly string[]).includes(code)
    ? describeError(code as ErrorCode).title
    : 'Something went wrong';
}

export function Problem({ fault, children }: { fault: Fault; children?: ReactNode }) {
  const queries = useQueryClient();
  // If a request is rejected because of a missing login, the page checks who is logged in, and asks for a login.
  useEffect(() => {
    if (fault.code === 'UNAUTHORIZED') void queries.invalidateQueries({ queryKey: ['me'] });
  }, [fault.code, queries]);
  const logins = useLogins();
  const [loginsBefore] = useState(logins);
  if (fault.code === 'UNAUTHORIZED' && logins > loginsBefore) {
    return (
      <div className="problem" role="status">
        <h2>You are logged in again</h2>
        <p>Your last action was stopped because your session had ended. Repeat it.</p>
        {children && <div className="actions">{children}</div>}
      </div>
    );
  }
  return (
    <div className="problem" role="alert">
      <h2>{fault.title}</h2>
      <p>{fault.message}</p>
      {(fault.code || fault.requestId) && (
        <p className="fine">
          {fault.code && <code>{fault.code}</code>}
          {fault.requestId && <> · request {fault.requestId}</>}
        </p>
      )}
      {children && <div className="actions">{children}</div>}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function CopyButton({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [state, setState] = useState<'idle' | 'copied' | 'failed'>('idle');
  useEffect(() => {
    if (state === 'idle') return;
    const timer = setTimeout(() => setState('idle'), 2500);
    return () => clearTimeout(timer);
  }, [state]);
  return (
    <button
      type="button"
      className="quiet small"
      onClick={() => void copy(text).then((done) => setState(done ? 'copied' : 'failed'))}
    >
      <span aria-live="polite">
        {state === 'copied' ? 'Copied' : state === 'failed' ? 'Select it and copy manually' : label}
      </span>
    </button>
  );
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page loaded over plain HTTP from another machine has no clipboard API: use the old way.
    const area = document.createElement('textarea');
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

export function Tag({ children, tone }: { children: ReactNode; tone?: 'good' | 'bad' | 'plain' }) {
  return <span className={`tag ${tone ?? 'plain'}`}>{children}</span>;
}

/** Modality, anatomy and task; “any” is omitted. */
export function KindTags({
  of: { modality, anatomy, task },
}: {
  of: { modality: string; anatomy: string; task: string };
}) {
  return [modality, formatSlug(anatomy), formatSlug(task)]
    .filter((word) => word.toLowerCase() !== 'any')
    .map((word) => <Tag key={word}>{word}</Tag>);
}
