// The style sheet of report pages.

#include "qkv/report/assets.h"
#include "qkv/report/heat_map.h"

namespace qkv {
namespace {

// Screens in the dark scheme override the colours; paper always gets the light ones.
constexpr const char* kLight = R"css(:root{
--page:#f7f7f5;--card:#fff;--ink:#1d2127;--soft:#5b636e;--faint:#8a929c;--rule:#e4e5e3;--grid:#ececea;--axis:#b9bec4;
--s0:#2b6cb0;--s1:#d07325;--s2:#3a8f66;--s3:#7a5fb3;--s4:#c04747;--s5:#2a95a5;--s6:#8a6a45;--s7:#6b7280}
)css";
constexpr const char* kDark = R"css(:root{
--page:#14171b;--card:#1b1f24;--ink:#e6e9ed;--soft:#a3abb5;--faint:#78818c;--rule:#2c3239;--grid:#272c33;--axis:#515a64;
--s0:#6aa7e3;--s1:#eb9d5c;--s2:#6fc29a;--s3:#ae98e0;--s4:#e78383;--s5:#62c3d0;--s6:#c4a47c;--s7:#9aa3af}
)css";

constexpr const char* kRules = R"css(*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums lining-nums}
main{max-width:1128px;margin:0 auto;padding:48px 24px 64px;display:grid;gap:20px;
grid-template-columns:minmax(0,1fr) minmax(0,1fr)}
main>*{grid-column:1/-1;margin:0;min-width:0}
main>.half{grid-column:auto}
h1{margin:0;font-size:28px;line-height:1.2;font-weight:650;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{margin:28px 0 0;font-size:19px;line-height:1.3;font-weight:620;letter-spacing:-.01em}
h3{margin:0;font-size:15px;line-height:1.4;font-weight:600}
main>p{max-width:72ch;overflow-wrap:anywhere}
.subtitle{margin:8px 0 0;color:var(--soft);overflow-wrap:anywhere}
.note{margin:2px 0 0;color:var(--soft);font-size:13px}
.tiles{display:grid;background:var(--card);border:1px solid var(--rule);border-radius:8px;overflow:hidden}
.c1{grid-template-columns:1fr}.c2{grid-template-columns:repeat(2,1fr)}.c3{grid-template-columns:repeat(3,1fr)}
.c4{grid-template-columns:repeat(4,1fr)}.c5{grid-template-columns:repeat(5,1fr)}
.tiles div{padding:14px 20px 13px;min-width:0;box-shadow:1px 0 0 var(--rule),0 1px 0 var(--rule)}
.tiles dt{color:var(--soft);font-size:13px}
.tiles dd{margin:2px 0 0;font-size:23px;line-height:1.3;font-weight:600;letter-spacing:-.01em;overflow-wrap:anywhere}
.tiles small{display:block;color:var(--faint);font-size:12.5px;font-weight:400;letter-spacing:0;line-height:1.4}
.card,.chart{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:18px 20px}
.chart{position:relative;display:flex;flex-direction:column}
summary{cursor:pointer;font-weight:600}
.chart summary{color:var(--faint);font-size:13px;font-weight:400;width:max-content}
.chart details{margin-top:6px}
.pairs{margin:12px 0 0;columns:2 340px;column-gap:40px;font-size:14px}
.pairs div{display:flex;justify-content:space-between;gap:20px;padding:5px 0;border-bottom:1px solid var(--grid);break-inside:avoid}
.pairs dt{color:var(--soft);overflow-wrap:anywhere}
.pairs dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:30%}
.scroll{overflow-x:auto;margin-top:10px}
.tall,.chart .scroll{max-height:400px;overflow-y:auto}
.tall thead th,.chart .scroll thead th{position:sticky;top:0;background:var(--card)}
table{border-collapse:collapse;font-size:14px}
th,td{padding:6px 13px;text-align:left;border-bottom:1px solid var(--grid);vertical-align:baseline;overflow-wrap:break-word}
td:first-child{min-width:10ch}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
thead th{white-space:normal;vertical-align:bottom;color:var(--soft);font-weight:500;font-size:13px;border-bottom:1px solid var(--axis)}
tbody th{font-weight:400}
tbody tr:last-child>*{border-bottom:0}
.number{text-align:right}
td.number{white-space:nowrap}
th button{all:unset;cursor:pointer}
th button:hover{color:var(--ink)}
th button:focus-visible,.legend button:focus-visible,summary:focus-visible,.plot svg:focus-visible{outline:2px solid var(--s0);outline-offset:3px;border-radius:3px}
th[aria-sort] button::after{content:" \2191"}
th[aria-sort=descending] button::after{content:" \2193"}
.bars{display:block;width:99px;height:20px;fill:var(--s0);fill-opacity:.75}
.passage p{margin:8px 0 0;white-space:pre-wrap;overflow-wrap:anywhere;max-width:80ch}
.lead{color:var(--faint)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:8px;font-size:13px;color:var(--soft)}
.legend svg{margin-right:7px;vertical-align:-0.5px}
.legend button{all:unset;cursor:pointer}
.legend button[aria-pressed=false]{opacity:.4;text-decoration:line-through}
.plot{margin-top:auto;padding-top:12px;overflow-x:auto}
.plot>svg{display:block;width:100%;height:auto;overflow:visible}
.plot text{font-size:11.5px;fill:var(--soft)}
.plot .label{fill:var(--ink)}
.plot .empty{fill:var(--faint);font-size:14px}
.middle{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:var(--grid)}.axis{stroke:var(--axis)}
.marker{stroke:var(--faint);stroke-dasharray:2 3}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.alt .line{stroke-dasharray:7 3}
.dashed .line{stroke-dasharray:4 4}
.faint .line{stroke-width:1;stroke-opacity:.38}
.legend .faint .line{stroke-width:1.8}
.faint .dot{fill-opacity:.32}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1}
.bar{fill:var(--c);fill-opacity:.88}
.bar:hover{fill-opacity:1}
.plot .cell{text-anchor:middle;font-size:11px}
.none{fill:none;stroke:var(--rule)}
.hidden{display:none}
.hit{fill:transparent;cursor:crosshair}
.hair{stroke:var(--faint);stroke-width:1;pointer-events:none}
.spot{fill:var(--c);stroke:var(--card);stroke-width:1.5;pointer-events:none}
.tip{position:absolute;z-index:1;pointer-events:none;background:var(--card);border:1px solid var(--axis);border-radius:6px;
padding:7px 10px;font-size:12.5px;line-height:1.5;box-shadow:0 3px 12px rgb(0 0 0/.12);white-space:nowrap}
.tip table{font-size:12.5px;width:auto}
.tip th,.tip td{border:0;padding:0 0 0 10px;font-weight:400}
.tip th:first-child{padding-left:0;color:var(--soft)}
.tip td{text-align:right}
.tip i{display:inline-block;width:8px;height:8px;border-radius:4px;background:var(--c);margin-right:7px}
.tip .at{color:var(--faint)}
.tip p{margin:2px 0 0;color:var(--soft);white-space:normal;max-width:260px}
@media (max-width:820px){main{grid-template-columns:minmax(0,1fr);padding:28px 14px 40px;gap:14px}.card,.chart{padding:14px}
.c3,.c4,.c5{grid-template-columns:repeat(2,1fr)}
.chart:not(.half) .plot>svg{min-width:720px}.chart.half .plot>svg{min-width:400px}}
@media print{@page{margin:14mm}body{background:none;font-size:12px}main{padding:0;max-width:none;gap:12px}
.card,.chart,.tiles{break-inside:avoid}h2{break-after:avoid}.chart details{display:none}.tall{max-height:none;overflow:visible}
svg,.tiles,.legend{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";

}  // namespace

std::string page_style() {
  return std::string(kLight) + heat_style(false) + "@media screen and (prefers-color-scheme:dark){\n" +
         kDark + heat_style(true) + "}\n" + kRules;
}

}  // namespace qkv
