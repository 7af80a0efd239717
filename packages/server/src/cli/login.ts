import { createClient } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { type ConnectOptions, connectTo, dataFolderOf, parseUrl } from './connect.ts';
import { plain } from './console.ts';
import { storedKeys, storeKey } from './keyring.ts';
import { askSecret, hasTerminal } from './terminal.ts';

export interface LoginFlags extends ConnectOptions {
  json?: boolean;
}

/** `tomaat login SERVER`: checks a key at the server, and stores it for this user; without a server, lists what is stored. */
export async function login(address: string | undefined, flags: LoginFlags): Promise<number> {
  const dataFolder = await dataFolderOf(flags);
  if (address === undefined) return list(dataFolder, flags);
  const { origin } = parseUrl(address);
  const key = flags.apiKey ?? (await readKey(origin));
  const { fetch } = await connectTo(address, { ...flags, apiKey: key });
  const me = await createClient({ baseUrl: address, apiKey: key, fetch }).me();
  if (me.login === 'off') {
    console.log(`${origin} needs no login.`);
    return 0;
  }
  if (!me.who)
    throw new TomaatError(
      'UNAUTHORIZED',
      `${origin} does not accept this key. Ask its operator for another one.`,
    );
  await storeKey(address, key, dataFolder);
  const { label, scopes, expiresTime } = me.who;
  const until = expiresTime === undefined ? '' : `, until ${new Date(expiresTime).toLocaleString('sv-SE')}`;
  console.log(`Logged in at ${origin} as ${plain(label)} (${scopes.join(', ')}${until}).`);
  return 0;
}

/** `tomaat logout SERVER`: forgets its key. */
export async function logout(address: string, flags: LoginFlags): Promise<number> {
  const { origin } = parseUrl(address);
  if (!(await storeKey(address, undefined, await dataFolderOf(flags))))
    throw new TomaatError('BAD_REQUEST', `There is no key for ${origin}. “tomaat login” lists the servers.`);
  console.log(
    `The key for ${origin} is deleted here. It stays valid until the server’s operator revokes it.`,
  );
  return 0;
}

async function list(dataFolder: string, { json }: LoginFlags): Promise<number> {
  const keys = await storedKeys(dataFolder);
  const shown = keys.map(({ server, savedTime }) => ({ server, savedTime }));
  if (json) console.log(JSON.stringify(shown));
  else if (shown.length === 0) console.log('No key is stored. Log in with: tomaat login SERVER_URL');
  else
    for (const { server, savedTime } of shown)
      console.log(`${plain(server)}  since ${savedTime.slice(0, 10)}`);
  return 0;
}

/** The key from the terminal, where it is not shown, or from standard input. */
async function readKey(origin: string): Promise<string> {
  const text = hasTerminal() ? await askSecret(`Key for ${origin}: `) : await readInput();
  const key = text.trim();
  if (key !== '') return key;
  throw new TomaatError('BAD_INPUT', 'No key was given. Type it, pipe it in, or set TOMAAT_API_KEY.');
}

/** A key is shorter than this by far. */
const longestInput = 10_000;

async function readInput(): Promise<string> {
  let text = '';
  for await (const part of process.stdin.setEncoding('utf8')) {
    text += part;
    if (text.length > longestInput)
      throw new TomaatError('BAD_INPUT', 'Standard input is too long for a key. Pipe in the key alone.');
  }
  return text;
}
