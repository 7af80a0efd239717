import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Checks the texts of the repository: they are about the project only, the links of every *.md have a target (an
 * existing file or heading), and the sources named there exist. Prints each error with its line; the exit code is 1
 * if there is one.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const own = 'scripts/check-texts.ts';

interface Rule {
  pattern: RegExp;
  why: string;
  /** Files to check; all of them if missing. */
  only?: RegExp;
  /** Files that are exempt. */
  except?: readonly string[];
}

/** Phrases that read as translated, and the plain words for them. */
const retired: readonly (readonly [RegExp, string])[] = [
  [/\bself-made certificate\b/i, 'self-signed certificate'],
  [/\bnot any more\b/i, 'no longer'],
  [/\btrusted already\b/i, 'already trusted'],
  [/\bnobody has to be anybody\b/i, 'unauthenticated'],
  [/\bif it is meant\b/i, 'if it is intended'],
  [/\bhas to mend\b/i, 'must fix'],
  [/\bsomebody is in between\b/i, 'somebody is intercepting the connection'],
  [/\bbehind the data\b/i, 'after the data'],
  [/\bput in or moved\b/i, 'inserted or moved'],
  [/\bis no (?:transform for|time\.|ordinary|SHA-256|ONNX|escape)/, 'is not a …'],
  [/\bas little there as none\b/i, 'treated as missing'],
  [/\b(?:whoever|whomever)\b/i, 'any caller, the owner, the user …'],
  [/\bis no (?:http|TOMAAT|address of|valid|(?:pre|post)process) /, 'is not a …'],
  [/\bany more\b(?! than)/, 'any longer'],
  [/\b(?:Choose from|Mend what is listed)\b/, 'Available: …, Correct the following'],
  [/\bcan be had as\b/, 'Available: …'],
  [/\b(?:under way at a time|may be cut and go on|as it came to)\b/i, 'concurrent, resumable, original'],
  [/\bunless told otherwise\b/i, 'by default'],
  [/\bWhat came of\b/, 'The result of'],
  [/\bof use to either\b|\bis of no use without\b/, 'has no effect without'],
  [/\bhas it that way\b|\bnobody told us\b/, 'that was not configured'],
];

const rules: readonly Rule[] = [
  { pattern: /\bthis session\b|\bthe CEO\b|\bfarm-/i, why: 'speaks of how the text came about' },
  { pattern: /(?<![\w.~-])\/work\//, why: 'is a path of one machine' },
  {
    pattern: /\.\.\/shared\b/,
    why: 'is a folder outside the repository: use test/real-data.ts',
    except: ['test/real-data.ts', '.ci/run'],
  },
  {
    pattern: /(?<![\w&/#(])#\d{1,5}\b/,
    why: 'is a number that nobody can look up: say what it was about',
    only: /\.md$/,
  },
  {
    pattern:
      /\b(?:registry\.npmjs\.org|registry\.yarnpkg\.com|pypi\.org|files\.pythonhosted\.org|proxy\.golang\.org)\b/,
    why: 'is the host of one registry: installations may use another',
  },
  {
    pattern: /[\u2014\u{1f300}-\u{1faff}]/u,
    why: 'is a dash or picture that these texts do without',
    only: /\.md$/,
  },
  ...retired.map(([pattern, words]) => ({ pattern, why: `is not plain English: write “${words}”` })),
];

const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\0')
  .filter((file) => file && existsSync(join(root, file)));

const faults: string[] = [];
for (const file of files) {
  if (file === own) continue;
  const bytes = readFileSync(join(root, file));
  if (bytes.subarray(0, 8192).includes(0)) continue;
  const text = bytes.toString('utf8');
  for (const { pattern, why, only, except } of rules) {
    if ((only && !only.test(file)) || except?.includes(file)) continue;
    text.split('\n').forEach((line, index) => {
      const match = pattern.exec(line);
      if (match) faults.push(`${file}:${index + 1}: “${match[0]}” ${why}`);
    });
  }
  if (file.endsWith('.md')) faults.push(...deadLinks(file, text), ...lostSources(file, text));
}

for (const fault of faults) console.error(fault);
console.log(faults.length === 0 ? 'The texts are in order.' : `${faults.length} faults in the texts.`);
process.exitCode = faults.length === 0 ? 0 : 1;

function deadLinks(file: string, text: string): string[] {
  const found: string[] = [];
  const prose = text.replaceAll(/```[\s\S]*?```/g, (block) => block.replaceAll(/[^\n]/g, ' '));
  for (const match of prose.matchAll(/\]\(([^)\s]+)\)|\bsrc="([^"]+)"/g)) {
    const target = match[1] ?? match[2];
    if (URL.canParse(target)) continue;
    const line = prose.slice(0, match.index).split('\n').length;
    const [path, anchor] = target.split('#');
    const to = path === '' ? file : join(dirname(file), path);
    if (!existsSync(join(root, to))) found.push(`${file}:${line}: the link ${target} leads nowhere`);
    else if (anchor && to.endsWith('.md') && !anchorsOf(to).has(anchor))
      found.push(`${file}:${line}: ${to} has no heading #${anchor}`);
  }
  return found;
}

/**
 * Sources named on a page, such as `store/jobs/jobs.ts`, that do not exist: no file has a path with this ending, and the
 * page itself does not show the file.
 */
function lostSources(file: string, text: string): string[] {
  const shown = new Set([...text.matchAll(/`([\w.-]+)`:\n\n```/g)].map(([, name]) => name));
  return [...text.matchAll(/`([\w./-]+\.(?:tsx?|m?js))`/g)]
    .filter(([, name]) => !shown.has(name))
    .filter(([, name]) => !files.some((known) => known === name || known.endsWith(`/${name}`)))
    .map((match) => {
      const line = text.slice(0, match.index).split('\n').length;
      return `${file}:${line}: there is no source ${match[1]}`;
    });
}

/** The anchors of a page's headings, as generated by GitHub. */
function anchorsOf(file: string): Set<string> {
  const text = readFileSync(join(root, file), 'utf8').replaceAll(/```[\s\S]*?```/g, '');
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => match[1]);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}
