import type { Me } from '@tomaat/client';
import { formatSeconds, formatTime } from './format.ts';
import type { HistoryEntry } from './store.ts';

/**
 * The page's texts about access, and about why something is missing. They depend on how users log in: not at all,
 * with an API key that several people and programs may share, or with an account of an OpenID Connect issuer.
 */

/** The environment variable from which the command line and the code samples read the key. */
export const keyVariable = 'TOMAAT_API_KEY';

/** Whether requests need a key; assumed not to if the server does not say. */
export const needsKey = (me: Me | undefined): boolean => me?.login === 'required';

const issuerOf = (me: Me) => me.ways.oidc?.host ?? 'the login server';

/** “with the API key “ward 3”” or “as Ada Example through login.example”; undefined without login. */
export function loginPhrase(me: Me | undefined): string | undefined {
  if (!me?.who) return undefined;
  return me.who.kind === 'key'
    ? `with the API key “${me.who.label}”`
    : `as ${me.who.label} through ${issuerOf(me)}`;
}

/** Who may open a job and its results, as a sentence. */
export function whoOpens(me: Me | undefined): string {
  if (!me) return 'The server did not say who can open the job.';
  if (!me.who)
    return 'This server has no login: anyone who can reach it and knows the address of a job can open it.';
  return me.who.kind === 'key'
    ? `Only people and programs that use the API key “${me.who.label}” can open the job.`
    : `Only you can open the job, logged in ${loginPhrase(me)}.`;
}

/** Where the data goes and how long it is kept. `uploadLife`: how long the server keeps an upload that no job has used. */
export function whereItGoes(
  me: Me | undefined,
  { host, keepSeconds, uploadLife }: { host: string; keepSeconds?: number; uploadLife: string },
): string {
  const results = keepSeconds === undefined ? 'some time' : formatSeconds(keepSeconds);
  return [
    `Nothing is sent until you press the button. Your data then goes to ${host}, and from there only to machines that its operator uses for computing.`,
    `It is deleted when the job is done (${uploadLife} later if the job fails or this page is closed); the results are deleted ${results} after that. Deleting the job deletes everything immediately.`,
    whoOpens(me),
  ].join(' ');
}

/** What “Compute on this computer” means: what stays here, and what the server learns. */
export const whereItStays = ({ host }: { host: string }): string =>
  [
    '“Compute on this computer” sends nothing of the scan, neither its voxels nor its header nor the result.',
    `This browser fetches the network from ${host}, once, and runs it here: ${host} learns that you fetched it, and no more.`,
    'Keep this page open until it is done; a server with a faster machine takes less time. The result is not signed by a server, and this browser deletes it after a week.',
  ].join(' ');

/** What a program needs to send predictions; undefined if it needs no key. */
export function keyNote(me: Me | undefined): string | undefined {
  if (!needsKey(me)) return undefined;
  const how = `Set the environment variable ${keyVariable} to the key: the code reads it from there.`;
  return me?.who?.kind === 'oidc'
    ? `Programs need an API key here; your login through ${issuerOf(me)} works only on this page. Ask the operator of this server for a key. ${how} Jobs sent with a key belong to that key, so this page cannot open them.`
    : `Programs need an API key here. ${how}`;
}

/** Why the server does not find this job for this user: it answers the same if the job belongs to somebody else. */
export function goneText(
  me: Me | undefined,
  entry: HistoryEntry | undefined,
  { keepSeconds, nowMs }: { keepSeconds?: number; nowMs: number },
): { title: string; message: string } {
  const kept = keepSeconds === undefined ? 'a while' : formatSeconds(keepSeconds);
  const again = 'Send the volume again if you still need the result.';
  if (entry && isExpired(entry, nowMs)) {
    return {
      title: 'This result has expired',
      message: `The server kept it until ${formatTime(entry.expiresTime!)}, then deleted it. ${again}`,
    };
  }
  if (entry) {
    return {
      title: 'This job no longer exists',
      message:
        entry.expiresTime === undefined
          ? `It was deleted, or it has expired: the server keeps results for ${kept}. ${again}`
          : `It was deleted before it expired, with this login in another browser or by the operator of the server. ${again}`,
    };
  }
  const login = loginPhrase(me);
  if (login === undefined) {
    return {
      title: 'Job not found',
      message: `It was deleted, it has expired (a server keeps results only for a while), or the address is wrong. ${again}`,
    };
  }
  return {
    title: 'Your login has no job with this id',
    message: `You are logged in ${login}. Only the login that sent a job can open it. If this job belongs to another login, log out and log in as its owner. Otherwise it was deleted, it has expired, or the address is wrong.`,
  };
}

/** Whether the time for which the server keeps the result of a job is over. */
export const isExpired = ({ expiresTime }: HistoryEntry, nowMs: number): boolean =>
  expiresTime !== undefined && Date.parse(expiresTime) <= nowMs;
