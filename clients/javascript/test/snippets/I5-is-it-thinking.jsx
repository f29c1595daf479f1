import { useActiveTurns, useClientTransport } from '@ably/ai-transport/react';

export function Indicator({ channelName, agentClientId, onRender }) {
  const { transport } = useClientTransport({ channelName });
  const activeTurns = useActiveTurns({ transport });

  const isStreaming = activeTurns.size > 0;
  const agentTurns = activeTurns.get(agentClientId);
  const agentIsBusy = agentTurns !== undefined && agentTurns.size > 0;
  onRender({ isStreaming, agentIsBusy, mine: activeTurns.get('user-1')?.size ?? 0 });

  return <output>{agentIsBusy ? 'The agent is answering' : 'Idle'}</output>;
}
