import { type Logger, pino } from 'pino';

/** The log of a serving command: lines of JSON on stderr. */
export function openLog(level: string): Logger {
  const destination = pino.destination(2);
  // When a terminal is closed, or the program that reads the log exits, the work continues without a log.
  destination.on('error', () => {});
  return pino({ level }, destination);
}
