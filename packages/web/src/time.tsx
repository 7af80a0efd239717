import { useEffect, useState } from 'react';
import { formatRelative } from './format.ts';

/** A time as seen from now, kept up to date; the exact time is its tooltip. */
export function Time({ at }: { at: string }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 15_000);
    return () => clearInterval(timer);
  }, []);
  const date = new Date(at);
  const exact = Number.isNaN(date.getTime())
    ? at
    : date.toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'medium' });
  return (
    <time dateTime={at} title={exact}>
      {formatRelative(at, now)}
    </time>
  );
}
