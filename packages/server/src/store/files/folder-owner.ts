import { chownSync, readFileSync, type Stats, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { TomaatError } from '@tomaat/core';

/**
 * The owner of a data folder. What one command creates there must be usable by every other command: a file that root leaves
 * in the folder of another user's server stops that server. So root acts as the folder's owner, and any other user is refused.
 */
export interface FolderOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Files that only the user who runs the server creates. The folder itself may be a mount point that belongs to root. */
const telling = ['server.db', 'registry.db', 'gateway.db', 'identity.key', 'audit.jsonl', 'known_hosts'];

/** The owner of the contents of a data folder, or of the folder while it is empty; undefined if it does not exist. */
export function ownerOf(dataFolder: string): FolderOwner | undefined {
  const found = telling.map((name) => statOf(join(dataFolder, name))).find((stat) => stat !== undefined);
  const { uid, gid } = found ?? statOf(dataFolder) ?? {};
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

/**
 * Lets this process act as the owner of a data folder until it is disposed of. Only root can, and nothing changes for
 * the owner itself, for a folder that does not exist yet, and on Windows.
 * @throws TomaatError FORBIDDEN for a user who is neither root nor the owner.
 */
export function actAsOwner(dataFolder: string): Disposable {
  const owner = requireOwner(dataFolder);
  if (!owner) return { [Symbol.dispose]() {} };
  const before = { uid: process.geteuid!(), gid: process.getegid!() };
  process.setegid!(owner.gid);
  process.seteuid!(owner.uid);
  return {
    [Symbol.dispose]() {
      process.seteuid!(before.uid);
      process.setegid!(before.gid);
    },
  };
}

/**
 * For servers: makes this process, and all that it starts, permanently run as the owner of a data folder. Returns the new owner,
 * undefined if nothing changed.
 * @throws TomaatError FORBIDDEN for a user who is neither root nor the owner.
 */
export function becomeOwner(dataFolder: string): FolderOwner | undefined {
  const owner = requireOwner(dataFolder);
  if (!owner) return undefined;
  const name = userName(owner.uid);
  // Other groups of that user, such as one that may read a key or use a GPU.
  if (name === undefined) process.setgroups!([owner.gid]);
  else (process as unknown as { initgroups(user: string, group: number): void }).initgroups(name, owner.gid);
  process.setgid!(owner.gid);
  process.setuid!(owner.uid);
  return owner;
}

/** Gives what root created in a data folder to the folder's owner. */
export function giveToOwner(path: string, dataFolder = dirname(path)): void {
  const owner = requireOwner(dataFolder);
  if (owner) chownSync(path, owner.uid, owner.gid);
}

/**
 * The owner that root must act as; undefined if this process can continue unchanged.
 * @throws TomaatError FORBIDDEN for a user who is neither root nor the owner.
 */
export function requireOwner(dataFolder: string): FolderOwner | undefined {
  const uid = process.geteuid?.();
  const owner = ownerOf(dataFolder);
  if (uid === undefined || owner === undefined || owner.uid === uid) return undefined;
  if (uid === 0) return owner;
  // An empty folder of another user, such as a mounted volume: the system decides whether it is writable.
  if (!telling.some((name) => statOf(join(dataFolder, name)))) return undefined;
  const name = userName(owner.uid) ?? `#${owner.uid}`;
  throw new TomaatError(
    'FORBIDDEN',
    `The data folder ${resolve(dataFolder)} belongs to the user ${name}, and you are ${userName(uid) ?? `#${uid}`}. Run the command as that user: sudo -u '${name}' …`,
  );
}

/** The name of a user; undefined if the system does not list it. */
export function userName(uid: number): string | undefined {
  let users: string;
  try {
    users = readFileSync('/etc/passwd', 'utf8');
  } catch {
    return undefined; // Fall back to the number.
  }
  for (const line of users.split('\n')) {
    const [name, , id] = line.split(':');
    if (name && id === String(uid)) return name;
  }
  return undefined;
}

/** The status of a file; undefined if it is missing or unreachable. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(code)) return undefined;
    throw error;
  }
}
