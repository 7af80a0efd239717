import type { GatewayPeer } from '@tomaat/client';
import { formatTime, sentence } from '../format.ts';
import { Tag } from '../ui.tsx';

/** Whether sources and destinations answer, and what is wrong where one does not. */
export function Connections({
  sources,
  destinations,
}: {
  sources: readonly GatewayPeer[];
  destinations: readonly GatewayPeer[];
}) {
  return (
    <section aria-labelledby="connections-title">
      <h2 id="connections-title" className="visually-hidden">
        Sources and destinations
      </h2>
      <ul className="peers">
        {sources.map((peer) => (
          <Peer key={`source ${peer.name}`} kind="Source" peer={peer} />
        ))}
        {destinations.map((peer) => (
          <Peer key={`destination ${peer.name}`} kind="Destination" peer={peer} />
        ))}
      </ul>
    </section>
  );
}

function Peer({ kind, peer: { name, lastOkTime, fault } }: { kind: string; peer: GatewayPeer }) {
  return (
    <li className="peer">
      <p className="peer-head">
        <span>
          <span className="fine">{kind}</span> <strong>{name}</strong>
        </span>
        {fault ? (
          <Tag tone="bad">Fault</Tag>
        ) : lastOkTime ? (
          <Tag tone="good">Answers</Tag>
        ) : (
          <Tag>Not used yet</Tag>
        )}
      </p>
      {fault && (
        <p className="peer-fault">
          {sentence(fault.message)} <span className="fine">Since {formatTime(fault.sinceTime)}.</span>
        </p>
      )}
      {lastOkTime && <p className="fine">Last answer {formatTime(lastOkTime)}</p>}
    </li>
  );
}
