import { withoutVolumeEnding } from '@tomaat/core';

/** Numbers, sizes and times as people read them. */

export function formatBytes(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 1) return 'less than a second';
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
}

/** 3:07, or 1:02:09. */
export function formatClock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours > 0 ? `${hours}:${rest}` : rest.replace(/^0(\d:)/, '$1');
}

/** A coordinate to the micrometre, or to four digits if it is less than a millimetre. */
export const formatMm = (mm: number): string =>
  String(Number(Math.abs(mm) < 1 ? mm.toPrecision(4) : mm.toFixed(3)));

export function formatTime(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(
    undefined,
    today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' },
  );
}

const relative = new Intl.RelativeTimeFormat('en');

/** “3 minutes ago”, “in 2 hours”; times more than a week away as they are. */
export function formatRelative(time: string, nowMs: number): string {
  const seconds = (Date.parse(time) - nowMs) / 1000;
  const isSoon = Math.abs(seconds) < 60;
  if (isSoon) return seconds > 0 ? 'in less than a minute' : 'just now';
  for (const [unit, length, most] of [
    ['minute', 60, 59],
    ['hour', 3600, 23],
    ['day', 86_400, 7],
  ] as const) {
    // Away from zero at halves, in both directions.
    const count = Math.sign(seconds) * Math.round(Math.abs(seconds) / length);
    if (Math.abs(count) <= most) return relative.format(count, unit);
  }
  return formatTime(time);
}

/** A message as a sentence: those of core end without a full stop. */
export const sentence = (text: string): string => (/[.!?]$/.test(text) ? text : `${text}.`);

/** “brain-mri” as “Brain mri”; words in all capitals are kept. */
export function formatSlug(slug: string): string {
  const words = slug.replaceAll('-', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A file's name without folder and volume ending. */
export function stemOf(fileName: string): string {
  const base = fileName.split(/[\\/]/).pop() ?? fileName;
  return withoutVolumeEnding(base) || 'volume';
}

/** A device as a card names it (cpu, webgpu, cuda, cuda:0), for readers. */
export function deviceName(device: string): string {
  const [kind, index] = device.split(':');
  if (kind === 'cuda') return index === undefined ? 'CUDA' : `CUDA, card ${index}`;
  return { cpu: 'CPU', webgpu: 'WebGPU' }[kind] ?? device;
}
