/** Copying to the clipboard, with a button that says that it worked. */
import { type ReactNode, useEffect, useRef, useState } from 'react';
import { announce } from './announcer';
import { Icon } from './icons';

/** The clipboard's interface exists in secure contexts only; a page over plain http has the older way. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text);
  }
}

function copyOldWay(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'unseen';
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  return copied;
}

const SHOWN_MS = 1500;

interface Props {
  text: string;
  label: string;
  /** A word beside the icon. */
  shown?: string;
  icon?: 'copy' | 'share';
}

export function CopyButton({ text, label, shown, icon = 'copy' }: Props): ReactNode {
  const [done, setDone] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const click = async (): Promise<void> => {
    const copied = await copy(text);
    announce(copied ? 'Copied' : 'This browser does not let the page copy');
    setDone(copied);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), SHOWN_MS);
  };
  return (
    <button type="button" className="quiet" onClick={() => void click()} aria-label={label} title={label}>
      <Icon name={done ? 'check' : icon} />
      {shown && <span>{done ? 'Copied' : shown}</span>}
    </button>
  );
}
