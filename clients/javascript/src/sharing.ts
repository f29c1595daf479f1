import type { RealtimeChannel } from 'ably';

const users = new WeakMap<RealtimeChannel, Set<object>>();
const leaving = new WeakMap<RealtimeChannel, Promise<void>>();

/** Use a channel. Resolves when no other user is just leaving it: an attach that meets a detach would fail. */
export async function enter(channel: RealtimeChannel, user: object): Promise<void> {
  const all = users.get(channel) ?? new Set();
  users.set(channel, all.add(user));
  await leaving.get(channel);
}

/** Stop using a channel. `close` detaches it; it stays attached while another transport uses it. */
export async function leave(channel: RealtimeChannel, user: object, close: () => Promise<void>): Promise<void> {
  const all = users.get(channel);
  all?.delete(user);
  if (all && all.size > 0) return closeWithoutDetach(channel, close);
  const closing = close();
  leaving.set(channel, closing);
  try {
    await closing;
  } finally {
    if (leaving.get(channel) === closing) leaving.delete(channel);
  }
}

/** A session of `@ably/ai-transport` detaches its channel even if others use it. */
async function closeWithoutDetach(channel: RealtimeChannel, close: () => Promise<void>): Promise<void> {
  const { detach } = channel;
  channel.detach = () => Promise.resolve();
  try {
    await close();
  } finally {
    channel.detach = detach;
  }
}
