import { createHash } from 'node:crypto';
import type { Problem } from '@tomaat/client';

/** An error as a person who follows a link meets it: the words of a Problem as a small page, without scripts. */

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1.5rem}' +
  '@media(prefers-color-scheme:dark){body{background:#14181d;color:#e6e9ed}a{color:#8ab4f8}}' +
  'h1{font-size:1.4rem}p{overflow-wrap:anywhere}small{opacity:.7}';

/** Nothing may be loaded, run or sent from it. */
export const problemPagePolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

export interface ProblemLink {
  link: string;
  text: string;
}

export function problemPage(
  { title, status, detail, requestId }: Problem,
  { link, text }: ProblemLink,
): string {
  const request = requestId === undefined ? '' : `<p><small>Request ${escapeHtml(requestId)}</small></p>`;
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)} - TOMAAT</title><style>${style}</style></head>
<body><main><h1>${escapeHtml(title)} (${status})</h1><p>${escapeHtml(detail)}</p>
<p><a href="${escapeHtml(link)}">${escapeHtml(text)}</a></p>${request}</main></body>
</html>
`;
}

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => entities[character]);
