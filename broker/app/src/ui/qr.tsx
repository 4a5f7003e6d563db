// A QR code, drawn here: nothing is asked of anybody else for it.
//
// Rule: dark on white in any theme, since cameras read nothing else well.

import { useEffect, useState } from "preact/hooks";

export function Qr({ text, label }: { text: string; label: string }) {
  const [path, setPath] = useState<{ d: string; size: number } | null>(null);
  useEffect(() => {
    let current = true;
    void import("uqr").then(({ encode }) => {
      const { data, size } = encode(text, { ecc: "M", border: 0 });
      let d = "";
      data.forEach((row, y) => row.forEach((dark, x) => dark && (d += `M${x} ${y}h1v1h-1z`)));
      if (current) setPath({ d, size });
    });
    return () => {
      current = false;
    };
  }, [text]);
  if (!path) return null;
  return (
    <svg class="qr" viewBox={`0 0 ${path.size} ${path.size}`} role="img" aria-label={label} shape-rendering="crispEdges">
      <path d={path.d} fill="#000" />
    </svg>
  );
}
